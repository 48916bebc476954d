/*
 * net: faults of the network, made by the packet filter of the network namespace that enter.sh has given this program.
 *
 * Only what arrives is dropped, in both directions, as in a network that has lost the host: whoever sends is told nothing.
 * The servers' Unix sockets go on, so that a test can ask a server that nobody else can reach.
 */
#ifndef NET_H
#define NET_H

/* Ends the program unless it runs in a namespace of its own: the filters of the machine are not ours to change. */
void net_require(void);

/* From now on every packet to and from this TCP port of any loopback address is lost; heal ends that. */
void black_hole(int port);
void heal(int port);
void heal_all(void);

/* Connection attempts (SYN packets, the kernel's repetitions included) that were sent to a port since the program began. */
long net_syns(int port);

/* New connections to address:port lead to this port of 127.0.0.1; those that are open stay where they are. */
void net_lead(const char *address, int port, int to_port);
void net_lead_nowhere(void); /* every address is again what it is */

#endif
