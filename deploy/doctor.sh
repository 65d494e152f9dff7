#!/bin/sh
# Says whether this machine has what `make up` needs, one line for each thing, and for what is
# missing the command that mends it here. It changes nothing. POSIX sh: dash, busybox and macOS'
# sh run it, with no tool that only one of them has.
set -u
cd "$(dirname "$0")/.." || exit 1
LC_ALL=C
export LC_ALL

# What `tilt up` listens on: Tilt itself, and the port-forwards of the Tiltfile.
ports=${DOCTOR_PORTS:-"${TILT_PORT:-10350} Tilt
8080 order
8082 inventory
8083 email
16686 Jaeger
8025 Mailpit
8081 schema registry
9094 Kafka"}
least_go=$(awk '$1 == "go" { print $2 }' go.mod)
least_tilt=0.36
least_kubernetes=1.30 # the manifests' preStop hooks sleep, which older ones refuse
least_memory=4096     # MiB; the limits of all pods add up to some 2048
kind=sigs.k8s.io/kind@v0.33.0
patience=${DOCTOR_PATIENCE:-10} # seconds that one command may take

tmp=$(mktemp -d "${TMPDIR:-/tmp}/keyline-doctor.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
next=

line() { printf '%-4s  %-14s %s\n' "$@"; }
ok() { line ok "$@"; }
warn() { line warn "$@"; }

# fail NAME FOUND COMMAND: COMMAND mends it.
fail() {
	line FAIL "$1" "$2"
	line '' '' "-> $3"
	next=${next:-$3}
}

have() { command -v "$1" >/dev/null 2>&1; }

# bounded COMMAND...: runs it until $patience is over; what it says is in $tmp/out and $tmp/err.
# macOS has no timeout(1). Files and no pipe: a child that outlives COMMAND would hold a pipe open.
bounded() {
	"$@" </dev/null >"$tmp/out" 2>"$tmp/err" &
	running=$!
	(
		left=$patience
		while [ "$left" -gt 0 ]; do
			sleep 1
			left=$((left - 1))
		done
		echo "no answer within $patience s" >>"$tmp/err"
		kill -9 "$running"
	) >/dev/null 2>&1 &
	watchdog=$!
	wait "$running" 2>/dev/null
	status=$?
	kill -9 "$watchdog" 2>/dev/null # a milder signal is lost while it still has this shell's traps
	wait "$watchdog" 2>/dev/null
	return "$status"
}

# The last line is what kubectl and docker give up with; those above are their tries.
why() {
	sed -n '/./h; ${ g; p; }' "$tmp/err"
}

# at_least HAVE WANT: versions.
at_least() {
	awk -v have="$1" -v want="$2" 'BEGIN {
		split(have, h, /[^0-9]+/)
		split(want, w, /[^0-9]+/)
		for (i = 1; i <= 3; i++) if (h[i] + 0 != w[i] + 0) exit h[i] + 0 < w[i] + 0
	}'
}

# mebibytes QUANTITY: of memory, in the units that nodes and docker use.
mebibytes() {
	number=${1%%[!0-9]*}
	case $1 in
	*Ki) echo $((${number:-0} / 1024)) ;;
	*Mi) echo "${number:-0}" ;;
	*Gi) echo $((${number:-0} * 1024)) ;;
	*) echo $((${number:-0} / 1024 / 1024)) ;;
	esac
}

gibibytes() { echo "$(($1 / 1024)).$(($1 % 1024 * 10 / 1024)) GiB"; }

case $(uname -s) in
Darwin) os=mac ;;
*) if have apt-get; then os=debian; else os=other; fi ;;
esac
case $(uname -m) in
aarch64 | arm64) machine=arm64 ;;
*) machine=amd64 ;;
esac

# how_to_get TOOL: prints what installs or renews it here. Debian's own packages of these are
# missing or too old.
how_to_get() {
	case $os:$1 in
	mac:docker) echo "brew install --cask docker-desktop && open -a Docker" ;;
	mac:*) echo "brew install $1" ;;
	debian:go) echo "sudo rm -rf /usr/local/go; curl -fsSL https://go.dev/dl/go$least_go.linux-$machine.tar.gz | sudo tar -C /usr/local -xz; export PATH=/usr/local/go/bin:\$PATH" ;;
	debian:docker) echo "curl -fsSL https://get.docker.com | sudo sh" ;;
	debian:kubectl) echo "curl -fLo /tmp/kubectl https://dl.k8s.io/release/\$(curl -fsSL https://dl.k8s.io/release/stable.txt)/bin/linux/$machine/kubectl && sudo install /tmp/kubectl /usr/local/bin/kubectl" ;;
	debian:tilt) echo "curl -fsSL https://raw.githubusercontent.com/tilt-dev/tilt/master/scripts/install.sh | bash" ;;
	*:kind) echo "export PATH=\$PATH:\$(go env GOPATH)/bin; go install $kind" ;;
	*:go) echo "see https://go.dev/dl/" ;;
	*:docker) echo "see https://docs.docker.com/engine/install/" ;;
	*:kubectl) echo "see https://kubernetes.io/docs/tasks/tools/" ;;
	*:tilt) echo "see https://docs.tilt.dev/install.html" ;;
	esac
}

# new_cluster: prints what makes a local cluster, and the context with it.
new_cluster() {
	if have kind; then
		echo "kind create cluster --name keyline"
	elif have minikube; then
		echo "minikube start"
	else
		echo "$(how_to_get kind) && kind create cluster --name keyline"
	fi
}

check_go() {
	have go || { fail go "not found; $least_go or newer" "$(how_to_get go)"; return; }
	# Told to be itself: an old one would fetch a newer one only to answer.
	bounded env GOTOOLCHAIN=local go version
	version=$(sed -n 's/.*go\([0-9][0-9.]*\).*/\1/p' "$tmp/out")
	if at_least "$version" "$least_go"; then
		ok go "$version"
	elif bounded sh -c 'cd / && go env GOTOOLCHAIN' && grep -q auto "$tmp/out"; then
		warn go "$version, fetches $least_go when it is first used"
	else
		fail go "${version:-no version}; go.mod asks for $least_go" "$(how_to_get go)"
	fi
}

check_docker() {
	have docker || { fail docker "not found" "$(how_to_get docker)"; return; }
	if bounded docker version --format '{{.Server.Version}}'; then
		version=$(cat "$tmp/out")
		bounded docker info --format '{{.MemTotal}}'
		memory=$(mebibytes "$(cat "$tmp/out")")
		if [ "$memory" -ge "$least_memory" ]; then
			ok docker "engine $version with $(gibibytes "$memory")"
		else
			warn docker "engine $version with $(gibibytes "$memory"): little for a cluster inside it, $(gibibytes "$least_memory") are enough"
		fi
		return
	fi
	case $os:$(why) in
	*"ermission denied"*) fix="sudo usermod -aG docker \$USER && newgrp docker" ;;
	mac:*) if have colima; then fix="colima start --kubernetes"; else fix="open -a Docker"; fi ;;
	*) fix="sudo systemctl start docker" ;;
	esac
	fail docker "its engine does not answer: $(why)" "$fix"
}

check_tilt() {
	have tilt || { fail tilt "not found" "$(how_to_get tilt)"; return; }
	if bounded tilt version; then
		version=$(sed 's/^v//; s/,.*//; q' "$tmp/out")
		if at_least "$version" "$least_tilt"; then
			ok tilt "$version"
		else
			fail tilt "$version; $least_tilt or newer is needed" "$(how_to_get tilt)"
		fi
	else
		fail tilt "does not start: $(why)" "$(how_to_get tilt)"
	fi
}

# git_version: from the JSON that kubectl answered with.
git_version() { sed -n 's/.*"gitVersion": *"v\([^"]*\)".*/\1/p' "$tmp/out"; }

check_kubectl() {
	have kubectl || { fail kubectl "not found; $least_kubernetes or newer" "$(how_to_get kubectl)"; return 1; }
	bounded kubectl version --client -o json
	version=$(git_version)
	if at_least "$version" "$least_kubernetes"; then
		ok kubectl "$version"
	else
		fail kubectl "${version:-no version}; $least_kubernetes or newer is needed" "$(how_to_get kubectl)"
	fi
}

# is_local NAME AUTHORITY: whether a context or its cluster has a local cluster's name, or minikube
# keeps its certificates. The Tiltfile has the same list.
is_local() {
	case $1 in
	*.eksctl.io) return 1 ;;
	minikube* | docker-desktop* | docker-for-desktop* | kind | kind-* | k3d-* | microk8s* | crc-* | \
		api-crc-testing* | rancher-desktop* | colima* | lima-* | orbstack) return 0 ;;
	esac
	case $2 in
	"${HOME:-/}/.minikube/"*) return 0 ;;
	esac
	return 1
}

# A name is only a name: kind-prod can be anywhere.
is_near() {
	case ${1#*://} in
	127.* | 0.0.0.0* | localhost* | '[::1]'* | 10.* | 192.168.* | 172.1[6-9].* | 172.2[0-9].* | 172.3[01].* | \
		host.docker.internal* | kubernetes.docker.internal* | api.crc.testing*) return 0 ;;
	esac
	return 1
}

# other_context: prints the first context that is local, if there is one.
other_context() {
	bounded kubectl config view -o 'jsonpath={range .contexts[*]}{.context.cluster}{" "}{.name}{"\n"}{end}'
	while read -r other name; do
		if is_local "$other" '' || is_local "$name" ''; then
			echo "$name"
			return
		fi
	done <"$tmp/out"
}

# check_context reads kubectl's configuration only. Where it fails nobody has asked the cluster
# for anything yet, and nobody will.
check_context() {
	bounded kubectl config view --minify -o 'jsonpath={.contexts[0].name}{"\n"}{.contexts[0].context.cluster}{"\n"}{.clusters[0].cluster.server}{"\n"}{.clusters[0].cluster.certificate-authority}{"\n"}' ||
		: >"$tmp/out"
	context='' cluster='' server='' authority=''
	{
		read -r context
		read -r cluster
		read -r server
		read -r authority
	} <"$tmp/out"
	if [ -n "$context" ] && [ -n "$server" ] && { is_local "$cluster" "$authority" || is_local "$context" ''; }; then
		if is_near "$server"; then
			ok context "$context at $server"
		else
			fail context "$context has a local cluster's name, but is at $server: nothing was asked of it, and the Tiltfile refuses it" "$(new_cluster)"
			return 1
		fi
		return
	fi
	if [ -z "$context" ]; then
		found="kubectl has no current context"
	elif [ -z "$server" ]; then
		found="$context has no server"
	else
		found="$context is not local (cluster $cluster at $server): nothing was asked of it, and the Tiltfile refuses it"
	fi
	other=$(other_context)
	if [ -n "$other" ]; then
		fail context "$found" "kubectl config use-context $other"
	else
		fail context "$found" "$(new_cluster)"
	fi
	return 1
}

# kube ...: asks the cluster that was found to be local, whatever the current context is by now.
kube() { bounded kubectl --context "$context" --request-timeout=5s "$@"; }

# start_cluster: prints what starts the one that does not answer.
start_cluster() {
	case $cluster in
	kind-*) echo "docker start ${cluster#kind-}-control-plane" ;;
	k3d-*) echo "k3d cluster start ${cluster#k3d-}" ;;
	minikube*) echo "minikube start -p $cluster" ;;
	colima*) echo "colima start --kubernetes" ;;
	rancher-desktop*) echo "rdctl start" ;;
	orbstack) echo "orb start k8s" ;;
	microk8s*) echo "microk8s start" ;;
	api-crc-testing*) echo "crc start" ;;
	docker-*) echo "see https://docs.docker.com/desktop/features/kubernetes/" ;;
	*) new_cluster ;;
	esac
}

check_cluster() {
	kube get --raw /version || {
		fail cluster "does not answer: $(why)" "$(start_cluster)"
		return 1
	}
	version=$(git_version)
	if at_least "$version" "$least_kubernetes"; then
		ok cluster "Kubernetes $version"
	else
		fail cluster "Kubernetes ${version:-of no version}; $least_kubernetes or newer is needed" "$(new_cluster)"
	fi
}

check_nodes() {
	kube get nodes -o 'jsonpath={range .items[*]}{.metadata.name}|{.status.nodeInfo.architecture}|{.status.allocatable.memory}|{.status.conditions[?(@.type=="Ready")].status}|{.status.conditions[?(@.type=="DiskPressure")].status}{"\n"}{end}' || {
		fail node "cannot be listed: $(why)" "kubectl get nodes"
		return
	}
	ready='' largest=0 foreign='' full=''
	while IFS='|' read -r name architecture memory is_ready is_full; do
		[ "$is_ready" = True ] || continue
		ready="$ready $name ($architecture)"
		memory=$(mebibytes "$memory")
		[ "$memory" -le "$largest" ] || largest=$memory
		[ "$is_full" != True ] || full="$full $name"
		case $architecture in
		amd64 | arm64) ;;
		*) foreign="$foreign $name ($architecture)" ;;
		esac
	done <"$tmp/out"
	if [ -z "$ready" ]; then
		fail node "none is Ready" "kubectl wait --for=condition=Ready node --all --timeout=2m"
		return
	fi
	if [ -n "$foreign" ]; then
		fail node "the images are for amd64 and arm64, not for$foreign" "$(new_cluster)"
	else
		ok node "Ready:$ready"
	fi
	if [ "$largest" -ge "$least_memory" ]; then
		ok memory "$(gibibytes "$largest")"
	else
		warn memory "$(gibibytes "$largest"): may be too little for all pods, $(gibibytes "$least_memory") are enough"
	fi
	[ -z "$full" ] || warn disk "almost full on$full: pods will be evicted; docker system prune may help"
}

check_storage() {
	kube get storageclass -o 'jsonpath={range .items[*]}{.metadata.name}|{.metadata.annotations.storageclass\.kubernetes\.io/is-default-class}{"\n"}{end}' || {
		fail storage "classes cannot be listed: $(why)" "kubectl get storageclass"
		return
	}
	first='' default=''
	while IFS='|' read -r name is_default; do
		first=${first:-$name}
		[ "$is_default" != true ] || default=$name
	done <"$tmp/out"
	if [ -n "$default" ]; then
		ok storage "volumes of class $default"
		return
	fi
	case $cluster in
	minikube*) fix="minikube -p $cluster addons enable default-storageclass && minikube -p $cluster addons enable storage-provisioner" ;;
	microk8s*) fix="microk8s enable hostpath-storage" ;;
	*)
		if [ -n "$first" ]; then
			fix="kubectl annotate storageclass $first storageclass.kubernetes.io/is-default-class=true --overwrite"
		else
			fix=$(new_cluster)
		fi
		;;
	esac
	fail storage "no StorageClass is the default one, and the data stores claim volumes" "$fix"
}

# Tilt brings images into a kind cluster with kind's own command, unless the cluster announces a registry.
check_kind() {
	case $cluster in
	kind | kind-*) ;;
	*) return ;;
	esac
	if have kind; then
		ok kind "to load images"
	elif kube -n kube-public get configmap local-registry-hosting -o name; then
		ok kind "not needed, the cluster has a registry"
	else
		fail kind "not found; Tilt loads images with it" "$(how_to_get kind)"
	fi
}

# listening: the ports that are taken. Not from lsof, which shows others' sockets to root only.
listening() {
	if [ "$os" = mac ]; then
		bounded netstat -an -p tcp
		awk '/LISTEN/ { sub(/.*\./, "", $4); print $4 }' "$tmp/out"
	else
		cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' |
			while read -r hex; do echo $((0x$hex)); done
	fi
}

# holder PORT: prints "PID COMMAND" of whoever listens there, if this user may know.
holder() {
	if have lsof && bounded lsof -nP -iTCP:"$1" -sTCP:LISTEN; then
		awk '/\(LISTEN\)/ { print $2, $1; exit }' "$tmp/out"
	elif have ss && bounded ss -Hltnp "sport = :$1"; then
		sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\2 \1/p' "$tmp/out"
	fi
}

check_ports() {
	taken=" $(listening | tr '\n' ' ')" free='' tilts=''
	while read -r port what; do
		case $taken in
		*" $port "*) check_holder "$port" "$what" ;;
		*) free="$free $port" ;;
		esac
	done <<-END
		$ports
	END
	[ -z "$free" ] || ok ports "free:$free"
	[ -z "$tilts" ] || warn ports "held by Tilt, which runs already (make down ends it):$tilts"
}

# check_holder PORT WHAT: the port is taken.
check_holder() {
	who=$(holder "$1")
	pid=${who%% *}
	case ${who#* } in
	tilt) tilts="$tilts $1" ;;
	'') fail "port $1" "taken, wanted for $2" "sudo lsof -nP -iTCP:$1 -sTCP:LISTEN" ;;
	*docke* | OrbStack | limactl | ssh) fail "port $1" "taken by a container, wanted for $2" "docker ps --filter publish=$1" ;;
	*) fail "port $1" "taken by ${who#* } (PID $pid), wanted for $2" "kill $pid" ;;
	esac
}

check_go
check_docker
check_tilt
if check_kubectl && check_context && check_cluster; then
	check_nodes
	check_storage
	check_kind
fi
check_ports

if [ -n "$next" ]; then
	echo "next: $next"
	exit 1
fi
echo "next: make up"
