# A real Postgres with durable settings. Sourced by .ci/real; uses $work, sets $postgres_url. POSIX sh.

postgres_started=

# postgres_bin: prints the folder of the newest Postgres here.
postgres_bin() {
	if command -v initdb >/dev/null; then
		dirname "$(command -v initdb)"
	else
		find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1 | xargs -r dirname
	fi
}

# postgres_install: Debian's package would start a server of its own on port 5432.
postgres_install() {
	[ -z "$(postgres_bin)" ] || return 0
	need pg_createcluster postgresql-common
	echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	need initdb postgresql
}

# as_postgres COMMAND...: Postgres refuses to run as root.
as_postgres() {
	if [ "$(id -u)" = 0 ]; then
		runuser -u "$postgres_user" -- "$@"
	else
		"$@"
	fi
}

# postgres_start: returns when it answers.
postgres_start() {
	postgres_install
	bin=$(postgres_bin)
	[ -n "$bin" ] || die "Postgres is missing: install it (Debian: postgresql) and run this again"
	data=$work/postgres
	mkdir "$data"
	if [ "$(id -u)" = 0 ]; then
		postgres_user=postgres
		id postgres >/dev/null 2>&1 || postgres_user=nobody
		chown "$postgres_user" "$data"
	fi
	as_postgres "$bin/initdb" -D "$data" -U keyline -A trust -E UTF8 --locale=C --no-sync >"$work/initdb.log" 2>&1 || {
		tail_log "$work/initdb.log"
		die "initdb could not make a database"
	}
	port=$(free_ports 1)
	cat >>"$data/postgresql.conf" <<-END
		listen_addresses = '127.0.0.1'
		port = $port
		unix_socket_directories = ''
		max_connections = 200
	END
	postgres_started=1
	as_postgres "$bin/pg_ctl" -s -w -t 60 -D "$data" -l "$data/server.log" start || {
		tail_log "$data/server.log"
		die "Postgres did not start"
	}
	postgres_url="postgres://keyline@127.0.0.1:$port/postgres?sslmode=disable"
}

# postgres_stop: pg_ctl knows the server's PID from its folder.
postgres_stop() {
	[ -n "$postgres_started" ] || return 0
	as_postgres "$bin/pg_ctl" -s -w -t 15 -D "$data" -m fast stop 2>/dev/null ||
		as_postgres "$bin/pg_ctl" -s -D "$data" -m immediate stop 2>/dev/null
	postgres_started=
}
