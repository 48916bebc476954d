-- What the statements of this directory need. Run once by the superuser on the primary.
CREATE EXTENSION dblink;
CREATE EXTENSION tablefunc;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION pgcrypto;
CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION "uuid-ossp";
CREATE EXTENSION tsm_system_rows;

-- pgbench
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches VALUES (1, 0), (2, 5);
INSERT INTO pgbench_tellers SELECT i, 1, 0 FROM generate_series(1, 10) i;
INSERT INTO pgbench_accounts SELECT i, 1, i FROM generate_series(1, 100) i;

-- a Django site
CREATE TABLE django_content_type (id serial PRIMARY KEY, app_label varchar(100), model varchar(100));
CREATE TABLE auth_permission (id serial PRIMARY KEY, name varchar(255), content_type_id int REFERENCES django_content_type, codename varchar(100));
CREATE TABLE auth_group (id serial PRIMARY KEY, name varchar(150) UNIQUE);
CREATE TABLE auth_user (id serial PRIMARY KEY, password varchar(128), last_login timestamptz, is_superuser bool DEFAULT false,
	username varchar(150) UNIQUE, first_name varchar(150) DEFAULT '', last_name varchar(150) DEFAULT '', email varchar(254) DEFAULT '', is_staff bool DEFAULT false,
	is_active bool DEFAULT true, date_joined timestamptz DEFAULT '2020-01-01');
CREATE TABLE auth_user_groups (id bigserial PRIMARY KEY, user_id int REFERENCES auth_user, group_id int REFERENCES auth_group);
CREATE TABLE auth_group_permissions (id bigserial PRIMARY KEY, group_id int, permission_id int);
CREATE TABLE auth_user_user_permissions (id bigserial PRIMARY KEY, user_id int, permission_id int);
CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text, expire_date timestamptz);
CREATE TABLE django_migrations (id bigserial PRIMARY KEY, app varchar(255), name varchar(255), applied timestamptz);
CREATE TABLE django_admin_log (id serial PRIMARY KEY, action_time timestamptz, object_id text, object_repr varchar(200), action_flag smallint, change_message text, content_type_id int, user_id int);
CREATE TABLE blog_post (id bigserial PRIMARY KEY, title varchar(200), slug varchar(50), body text, author_id int REFERENCES auth_user, created timestamptz DEFAULT '2024-02-29 12:00+00',
	published bool DEFAULT true, rating numeric(4,2) DEFAULT 1.5, data jsonb DEFAULT '{"a": 1, "tags": ["x"]}', tags varchar(20)[] DEFAULT '{a,b}', span int4range DEFAULT '[1,5)', search tsvector DEFAULT 'a cat'::tsvector);
CREATE TABLE blog_comment (id bigserial PRIMARY KEY, post_id bigint REFERENCES blog_post, body text, likes int DEFAULT 0);
INSERT INTO django_content_type (app_label, model) VALUES ('auth', 'user'), ('blog', 'post');
INSERT INTO auth_permission (name, content_type_id, codename) VALUES ('Can add', 1, 'add_user');
INSERT INTO auth_group (name) VALUES ('editors');
INSERT INTO auth_user (username, password, email) VALUES ('ann', 'x', 'ann@example.org'), ('bob', 'y', 'BOB@example.org');
INSERT INTO blog_post (title, slug, body, author_id) SELECT 'Post ' || i, 'post-' || i, 'a cat', 1 + i % 2 FROM generate_series(1, 20) i;
INSERT INTO blog_comment (post_id, body) SELECT 1 + i % 20, 'c' FROM generate_series(1, 50) i;
INSERT INTO django_session VALUES ('k', 'd', '2030-01-01');
INSERT INTO django_migrations (app, name, applied) VALUES ('auth', '0001_initial', '2024-01-01');

-- a Rails site
CREATE TYPE order_state AS ENUM ('open', 'paid');
CREATE TABLE schema_migrations (version varchar PRIMARY KEY);
CREATE TABLE ar_internal_metadata (key varchar PRIMARY KEY, value varchar, created_at timestamp, updated_at timestamp);
CREATE TABLE users (id bigserial PRIMARY KEY, name varchar, email citext, settings hstore DEFAULT 'a=>1', deleted_at timestamp, created_at timestamp DEFAULT '2024-01-01', updated_at timestamp);
CREATE TABLE orders (id bigserial PRIMARY KEY, user_id bigint, state order_state DEFAULT 'open', total numeric(10,2) DEFAULT 9.5, placed_on date DEFAULT '2024-03-01', lock_version int DEFAULT 0);
CREATE TABLE line_items (id bigserial PRIMARY KEY, order_id bigint, sku varchar, quantity int DEFAULT 1);
CREATE TABLE active_storage_blobs (id bigserial PRIMARY KEY, key varchar, filename varchar, byte_size bigint);
CREATE TABLE active_storage_attachments (id bigserial PRIMARY KEY, name varchar, record_type varchar, record_id bigint, blob_id bigint);
INSERT INTO schema_migrations VALUES ('20240101000000');
INSERT INTO ar_internal_metadata VALUES ('environment', 'production');
INSERT INTO users (name, email) SELECT 'u' || i, 'U' || i || '@example.org' FROM generate_series(1, 10) i;
INSERT INTO orders (user_id) SELECT 1 + i % 10 FROM generate_series(1, 30) i;
INSERT INTO line_items (order_id, sku) SELECT 1 + i % 30, 's' || i FROM generate_series(1, 60) i;

-- what hides something
CREATE SEQUENCE numbers;
CREATE TABLE plain (id int PRIMARY KEY, t text);
INSERT INTO plain VALUES (1, 'a'), (2, 'b');
CREATE UNLOGGED TABLE unlogged (id int);
CREATE MATERIALIZED VIEW kept AS SELECT * FROM plain;
CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
CREATE USER MAPPING FOR PUBLIC SERVER nowhere;
CREATE FOREIGN TABLE far_away (id int) SERVER nowhere;
CREATE TABLE parted (id int) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_far (id int) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE parted_far_1 PARTITION OF parted_far FOR VALUES FROM (0) TO (100) SERVER nowhere;
CREATE SCHEMA other;
CREATE TABLE other.plain (id int);
CREATE UNLOGGED TABLE other.users_archive (id int);
CREATE TABLE users_archive (id int);

-- takes an advisory lock: what a standby does without a word
CREATE FUNCTION lock_it(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(i); RETURN i; END';
CREATE FUNCTION lock_ok(i int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(i); RETURN true; END';
CREATE FUNCTION lazy(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN i + 1; END'; -- volatile, for nobody said otherwise
CREATE FUNCTION careless(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN i + 1; END';
CREATE FUNCTION pure(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i + 1';
CREATE FUNCTION looks() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM plain';
CREATE FUNCTION rows_of() RETURNS SETOF plain STABLE LANGUAGE sql AS 'SELECT * FROM plain ORDER BY id';
CREATE FUNCTION liar() RETURNS bigint STABLE LANGUAGE plpgsql AS 'BEGIN RETURN nextval(''numbers''); END';
CREATE FUNCTION locking_liar(i int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(i); RETURN i; END';
CREATE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 2';
CREATE FUNCTION twice(t text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(3); RETURN t; END';
CREATE FUNCTION elsewhere(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i';
CREATE FUNCTION other.elsewhere(i bigint) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(4); RETURN 1; END';
CREATE FUNCTION next_number(plain) RETURNS bigint LANGUAGE sql AS 'SELECT lock_it(5)::bigint';
CREATE FUNCTION label(plain) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1.t || ''!''';
CREATE FUNCTION step(s int, i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(6); RETURN s + i; END';
CREATE AGGREGATE locking_sum (int) (SFUNC = step, STYPE = int, INITCOND = 0);
CREATE FUNCTION good_step(s int, i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT s + i';
CREATE AGGREGATE good_sum (int) (SFUNC = good_step, STYPE = int, INITCOND = 0);
CREATE FUNCTION op_lock(a int, b int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(7); RETURN true; END';
CREATE OPERATOR <!> (FUNCTION = op_lock, LEFTARG = int, RIGHTARG = int);
CREATE DOMAIN guarded AS int CHECK (lock_ok(VALUE));
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN guarded_more AS guarded;
CREATE FUNCTION takes_guarded(g guarded) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION state_lock(s order_state) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(8); RETURN 1; END';
CREATE TYPE shade AS (depth int);
CREATE FUNCTION to_shade(s order_state) RETURNS shade LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(9); RETURN ROW(1)::shade; END';
CREATE CAST (order_state AS shade) WITH FUNCTION to_shade(order_state);
CREATE FUNCTION defaulted(i int DEFAULT lock_it(12)) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i';
CREATE FUNCTION built_in_default(i bool DEFAULT pg_try_advisory_lock(13)) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT i';
CREATE FUNCTION good_default(i int DEFAULT 1 + abs(-1)) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i';
CREATE PROCEDURE nothing() LANGUAGE sql AS 'SELECT 1';

CREATE VIEW v_clean AS SELECT p.id, upper(p.t) AS t FROM plain p;
CREATE VIEW v_over_clean AS SELECT count(*) AS n FROM v_clean;
CREATE VIEW v_next AS SELECT nextval('numbers') AS n;
CREATE VIEW v_over_next AS SELECT n + 1 AS n FROM (SELECT * FROM v_next) x;
CREATE VIEW v_lock AS SELECT pg_advisory_lock(10) IS NULL AS l;
CREATE VIEW v_where AS SELECT id FROM plain WHERE lock_ok(id);
CREATE VIEW v_over_where AS SELECT * FROM v_where;
CREATE VIEW v_stat AS SELECT count(*) AS n FROM pg_stat_activity;
CREATE VIEW v_over_stat AS SELECT n FROM v_stat;
CREATE VIEW v_sequence AS SELECT last_value FROM numbers;
CREATE VIEW v_operator AS SELECT id FROM plain WHERE id <!> 2;
CREATE VIEW v_guarded AS SELECT id::guarded FROM plain;
CREATE VIEW v_setting AS SELECT current_setting('transaction_read_only') AS s;
CREATE VIEW v_cte AS WITH x AS (SELECT lock_it(11) AS i) SELECT * FROM x;
CREATE VIEW v_aggregate AS SELECT locking_sum(id) FROM plain;
CREATE VIEW v_lazy AS SELECT lazy(id) AS id FROM plain;
CREATE MATERIALIZED VIEW kept_next AS SELECT nextval('numbers') AS n;
CREATE TABLE secret (id int);
INSERT INTO secret VALUES (1);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON secret USING (lock_ok(id));
CREATE TABLE quiet (id int);
INSERT INTO quiet VALUES (1), (-1);
ALTER TABLE quiet ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON quiet USING (id > 0);
CREATE TABLE setting_secret (id int);
ALTER TABLE setting_secret ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON setting_secret USING (id = pg_backend_pid());

GRANT ALL ON ALL TABLES IN SCHEMA public, other TO app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;
GRANT ALL ON SCHEMA public, other TO app;
