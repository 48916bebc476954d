# mkman: one manual page (section 3) for each public function, from the comments of include/dbha.h.
# Usage: awk -v dir=OUTPUT -v version=0.1.0 -f mkman.awk dbha.h
#
# A page is made of the comment right above a DBHA_API declaration: its first sentence is the NAME, the declarations that
# follow the comment are the SYNOPSIS, the rest is the DESCRIPTION, where the words of the template begin a paragraph.

function flush_page(    i, file, name, all, body, summary, at) {
	if (n_names == 0 || comment == "")
		return
	at = index(comment, ":")
	body = substr(comment, at + 2)
	match(body, /[.:;] /)
	summary = RSTART ? substr(body, 1, RSTART - 1) : body
	all = names[1]
	for (i = 2; i <= n_names; i++)
		all = all ", " names[i]
	for (i = 1; i <= n_names; i++) {
		file = dir "/" names[i] ".3"
		printf ".TH %s 3 \"\" \"libdbha %s\" \"libdbha\"\n.SH NAME\n%s \\- %s\n", toupper(names[i]), version, all, summary > file
		printf ".SH SYNOPSIS\n.nf\n.B #include <dbha.h>\n.PP\n%s.fi\n.SH DESCRIPTION\n", synopsis > file
		name = body
		gsub(/\\/, "\\e", name)
		name = break_paragraphs(name)
		printf "%s\n.SH SEE ALSO\n.BR dbha (1)\n", name > file
		close(file)
	}
}

# "Returns:", "Errors:" and the others begin a paragraph with the word in bold.
function break_paragraphs(text,    labels, n, i) {
	n = split("Returns Errors Threads Blocking Ownership Fork", labels, " ")
	for (i = 1; i <= n; i++)
		gsub(" " labels[i] ": ", "\n.PP\n.B " labels[i] ":\n", text)
	return text
}

function strip(line) {
	sub(/^ \* ?/, "", line)
	sub(/^ +/, "", line)
	return line
}

/^\/\*$/ { flush_page(); comment = ""; synopsis = ""; n_names = 0; in_comment = 1; next }
in_comment && /^ \*\/$/ { in_comment = 0; next }
in_comment { comment = comment (comment == "" ? "" : " ") strip($0); next }
/^DBHA_API / { declaration = ""; in_declaration = 1 }
in_declaration {
	line = $0
	sub(/^DBHA_API /, "", line)
	declaration = declaration line "\n"
	if (line ~ /;$/) {
		in_declaration = 0
		match(declaration, /dbha_[a-z_]+\(/)
		names[++n_names] = substr(declaration, RSTART, RLENGTH - 1)
		synopsis = synopsis declaration
	}
	next
}
/^typedef|^struct|^#/ { flush_page(); comment = ""; n_names = 0 }
END { flush_page() }
