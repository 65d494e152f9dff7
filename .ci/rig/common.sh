# Sourced by the scripts beside it. POSIX sh.

say() { echo "$0: $*" >&2; }

die() {
	say "$*"
	exit 1
}

# need COMMAND PACKAGE...: installs Debian's packages where the command is missing.
need() {
	need_command=$1
	shift
	command -v "$need_command" >/dev/null && return
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		die "$need_command is missing: install it (Debian: $*) and run this again"
	fi
	say "installing $*"
	install_packages "$@" || die "apt-get could not install $*"
}

install_packages() {
	[ -n "${apt_updated:-}" ] || apt-get -qq update || return
	apt_updated=1
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "$@" >/dev/null
}

# free_ports N: prints N ports of 127.0.0.1 that were free a moment ago.
free_ports() {
	perl -MIO::Socket::INET -e 'print join " ", map { $_->sockport }
		map { IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:0") } 1 .. shift' "$1"
}

# tail_log FILE: the last lines of a log, for whoever has to find out.
tail_log() {
	[ -f "$1" ] || return 0
	say "the end of its log:"
	tail -n 20 "$1" >&2
}
