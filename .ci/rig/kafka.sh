# A real Kafka broker in KRaft mode. Sourced by .ci/real; uses its $rig and $work, sets
# $kafka_addr. POSIX sh.

kafka_version=4.2.1
kafka_pid=
kafka_logs=

# kafka_room: sets $kafka_logs to a new folder for the broker's logs, in memory where there is room.
# A broker leaves what it writes to the kernel, which puts half a minute of it on the disk in one
# go; as long as that takes, some 200 ms, Postgres cannot commit if it has the same disk.
kafka_room() {
	room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
	free=$(awk '/^MemAvailable/ { print $2 }' /proc/meminfo 2>/dev/null)
	if [ "${room:-0}" -ge 4194304 ] && [ "${free:-0}" -ge 8388608 ] && kafka_logs=$(mktemp -d /dev/shm/keyline-kafka.XXXXXX 2>/dev/null); then
		return
	fi
	kafka_logs=$work/kafka
	mkdir "$kafka_logs"
}

# kafka_cached: sets $jars to the folder of the broker's jars, and says whether it is there.
kafka_cached() {
	jars=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/keyline/kafka-$kafka_version
	[ -d "$jars" ]
}

# kafka_jars: makes sure of the broker's jars, and sets $jars to their folder.
kafka_jars() {
	kafka_cached && return
	need mvn maven
	say "fetching Kafka $kafka_version (once)"
	mkdir -p "$(dirname "$jars")"
	fetched=$(mktemp -d "$jars.XXXXXX")
	mvn -q -B -f "$rig/pom.xml" -Dkafka.version="$kafka_version" dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory="$fetched" >"$work/mvn.log" 2>&1 || {
		rm -rf "$fetched"
		tail_log "$work/mvn.log"
		die "Maven could not fetch Kafka $kafka_version"
	}
	# Only now, so that a run that was interrupted leaves no half folder to be trusted; another
	# run may have been quicker.
	if [ -d "$jars" ]; then rm -rf "$fetched"; else mv "$fetched" "$jars"; fi
}

# kafka_java MAIN ARGUMENT...: becomes the JVM, so that a background job's PID is the JVM's.
kafka_java() {
	exec java -Xmx512m -cp "$jars/*" "-Dlog4j2.configurationFile=$rig/log4j2.properties" "$@"
}

# kafka_start: starts the broker, and returns before it answers.
kafka_start() {
	need java default-jre-headless
	kafka_jars
	# shellcheck disable=SC2046 # two words are wanted
	set -- $(free_ports 2)
	kafka_addr=127.0.0.1:$1
	kafka_room
	cat "$rig/server.properties" - >"$work/kafka.properties" <<-END
		listeners=PLAINTEXT://$kafka_addr,CONTROLLER://127.0.0.1:$2
		advertised.listeners=PLAINTEXT://$kafka_addr
		controller.quorum.voters=1@127.0.0.1:$2
		log.dirs=$kafka_logs
	END
	(kafka_java kafka.tools.StorageTool format -t keyline-real-broker-00 -c "$work/kafka.properties") \
		>"$work/kafka.log" 2>&1 || {
		tail_log "$work/kafka.log"
		die "Kafka could not format its folder"
	}
	kafka_java kafka.Kafka "$work/kafka.properties" >"$work/kafka.log" 2>&1 &
	kafka_pid=$!
}

# kafka_wait: returns when the broker answers.
kafka_wait() {
	tries=300
	until grep -q 'Kafka Server started' "$work/kafka.log"; do
		kill -0 "$kafka_pid" 2>/dev/null || {
			tail_log "$work/kafka.log"
			die "Kafka ended before it answered"
		}
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || {
			tail_log "$work/kafka.log"
			die "Kafka did not answer within a minute"
		}
		sleep 0.2
	done
}

# kafka_stop: at once if it does not stop by itself within 15 seconds. Its logs are gone then.
kafka_stop() {
	if [ -n "$kafka_pid" ]; then
		kill "$kafka_pid" 2>/dev/null
		tries=75
		while kill -0 "$kafka_pid" 2>/dev/null && [ "$tries" -gt 0 ]; do
			tries=$((tries - 1))
			sleep 0.2
		done
		kill -9 "$kafka_pid" 2>/dev/null
		wait "$kafka_pid" 2>/dev/null
		kafka_pid=
	fi
	[ -z "$kafka_logs" ] || rm -rf "$kafka_logs"
	kafka_logs=
}
