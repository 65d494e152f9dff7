package check

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// flows are the connections that may be: the NetworkPolicies of an overlay must let through these
// and no others. A pod is named by its label app.kubernetes.io/name, what is outside by its
// namespace and the pods there (* is any), or by its addresses. Any overlay but local is held against
// the rows of production: addresses and namespaces may be others there, pods and ports may not. What
// it needs beside them is a row under its own name.
var flows = []struct {
	overlay  string // empty: each
	from, to string // several with blanks; * is all pods of the overlay
	ports    string
	why      string
}{
	{"", "*", "kube-system/k8s-app=kube-dns", "53 53/UDP", "names"},
	{"", "console", "order inventory email", "8081", "the operator's routes, which authenticate nobody"},

	{"local", "order inventory email console provision", "kafka", "9092", "events, groups, topics"},
	{"local", "order inventory email console provision", "registry", "8080", "schemas"},
	{"local", "order inventory email", "postgres", "5432", "their databases"},
	{"local", "order inventory email", "jaeger", "4318", "spans"},
	{"local", "email", "mailpit", "1025", "mails"},

	// Where overlays/production/network.yaml is filled in, this is, too.
	{"production", "order inventory email console provision", "192.0.2.0/28", "9093", "Kafka"},
	{"production", "order inventory email console provision", "192.0.2.16/32", "443", "the schema registry"},
	{"production", "order inventory email", "192.0.2.32/32", "5432", "PostgreSQL"},
	{"production", "order inventory email", "192.0.2.48/32", "4318", "the OTLP collector"},
	{"production", "email", "192.0.2.64/32", "587", "the mail server"},
	{"production", "ingress/*", "order", "8080", "orders from outside"},
	{"production", "monitoring/*", "order inventory email", "8080", "metrics"},
}

// checkFlows compares the flows that the policies let through with those of the table.
func (o *overlay) checkFlows() {
	want, got := o.declared(), o.allowed()
	for _, f := range sorted(want) {
		o.want(got[f], "NetworkPolicy", "%s (%s) is not let through: allow it, where both ends are pods here on both; or take it out of flows in deploy/check/network.go", f, want[f])
	}
	for _, f := range sorted(got) {
		o.want(want[f] != "", "NetworkPolicy", "%s is let through: tighten what allows it, or add it to flows in deploy/check/network.go", f)
	}
}

func (o *overlay) declared() map[string]string {
	var pods []string
	for _, p := range o.pods {
		pods = append(pods, p.name())
	}
	all := map[string]string{}
	for _, f := range flows {
		if !slices.Contains([]string{"", o.base(), o.table()}, f.overlay) {
			continue
		}
		from := strings.Fields(f.from)
		if f.from == "*" {
			from = pods
		}
		for _, from := range o.kinds(from) {
			for _, to := range o.kinds(strings.Fields(f.to)) {
				for _, port := range strings.Fields(f.ports) {
					all[from+" -> "+to+":"+port] = f.why
				}
			}
		}
	}
	return all
}

// base is the overlay without the components that render adds.
func (o *overlay) base() string {
	base, _, _ := strings.Cut(o.name, ".")
	return base
}

// table names the rows of flows that hold for an overlay, whoever has made it.
func (o *overlay) table() string {
	if o.local() {
		return "local"
	}
	return "production"
}

// kinds are the names with what they are for in the place of addresses and namespaces, if those are
// filled in otherwise than in the table. What takes nearly everybody keeps its name beside that: it
// wants a row of its own.
func (o *overlay) kinds(names []string) (all []string) {
	if o.base() == o.table() {
		return names
	}
	for _, name := range names {
		addresses, _, _ := strings.Cut(name, "-")
		block, err := netip.ParsePrefix(addresses)
		kind, wide := "outside", block.Bits() < 8
		if err != nil {
			kind, wide = "a namespace", strings.HasPrefix(name, "*/")
		}
		if strings.Contains(name, "/") {
			all = append(all, kind)
		}
		if wide || !strings.Contains(name, "/") {
			all = append(all, name)
		}
	}
	return all
}

// allowed are the flows that the policies let through: between two pods here what both ends allow,
// with others what the end here allows.
func (o *overlay) allowed() map[string]bool {
	in, all := map[end]bool{}, map[string]bool{}
	for _, p := range o.pods {
		for _, e := range o.ends(p, networkingv1.PolicyTypeIngress) {
			in[end{p.name(), e.peer, e.port}] = true
		}
	}
	here := func(name string) bool {
		return slices.ContainsFunc(o.pods, func(p pod) bool { return p.name() == name })
	}
	for _, p := range o.pods {
		for _, e := range o.ends(p, networkingv1.PolicyTypeEgress) {
			if !here(e.peer) || in[end{e.peer, p.name(), e.port}] || in[end{e.peer, p.name(), "any"}] {
				all[p.name()+" -> "+e.peer+":"+e.port] = true
			}
			for to := range in {
				if e.port == "any" && to.pod == e.peer && to.peer == p.name() {
					all[p.name()+" -> "+e.peer+":"+to.port] = true
				}
			}
		}
	}
	for to := range in {
		if !here(to.peer) {
			all[to.peer+" -> "+to.pod+":"+to.port] = true
		}
	}
	return all
}

// end is what a policy lets a pod speak to, or be spoken to by. The port is that of the pod that
// is spoken to.
type end struct{ pod, peer, port string }

// ends are those of a pod in one direction. A pod that no policy takes may do everything.
func (o *overlay) ends(p pod, direction networkingv1.PolicyType) (ends []end) {
	isolated := false
	add := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		for _, peer := range o.kinds(o.peers(peers)) {
			for _, port := range portsOf(ports) {
				ends = append(ends, end{p.name(), peer, port})
			}
		}
	}
	for _, n := range all[*networkingv1.NetworkPolicy](o) {
		if !slices.Contains(n.Spec.PolicyTypes, direction) || !matches(&n.Spec.PodSelector, p.Labels) {
			continue
		}
		isolated = true
		if direction == networkingv1.PolicyTypeEgress {
			for _, r := range n.Spec.Egress {
				add(r.To, r.Ports)
			}
			continue
		}
		for _, r := range n.Spec.Ingress {
			add(r.From, r.Ports)
		}
	}
	if !isolated {
		add(nil, nil)
	}
	return ends
}

// peers are the names of the pods and of all else that a rule means; no peers mean everybody.
func (o *overlay) peers(peers []networkingv1.NetworkPolicyPeer) (names []string) {
	if len(peers) == 0 {
		names, peers = []string{"anywhere"}, []networkingv1.NetworkPolicyPeer{{}}
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			names = append(names, strings.Join(append([]string{peer.IPBlock.CIDR}, peer.IPBlock.Except...), "-"))
			continue
		}
		pods, inside := "*", peer.NamespaceSelector == nil
		if peer.PodSelector == nil {
			peer.PodSelector = &metav1.LabelSelector{}
		} else {
			pods = format(peer.PodSelector)
		}
		if peer.NamespaceSelector != nil {
			names = append(names, strings.TrimPrefix(format(peer.NamespaceSelector), corev1.LabelMetadataName+"=")+"/"+pods)
			for _, n := range all[*corev1.Namespace](o) {
				inside = matches(peer.NamespaceSelector, labels.Merge(n.Labels, labels.Set{corev1.LabelMetadataName: n.Name}))
			}
		}
		for _, p := range o.selected(peer.PodSelector) {
			if inside {
				names = append(names, p.name())
			}
		}
	}
	return names
}

func format(s *metav1.LabelSelector) string {
	return strings.ReplaceAll(metav1.FormatLabelSelector(s), "<none>", "*") // what wants nothing takes all
}

// portsOf are the ports that a rule means; a range, which none of ours needs, is taken for any.
func portsOf(ports []networkingv1.NetworkPolicyPort) (all []string) {
	if len(ports) == 0 {
		return []string{"any"}
	}
	for _, p := range ports {
		switch {
		case p.Port == nil || p.EndPort != nil:
			return []string{"any"}
		case *p.Protocol == corev1.ProtocolTCP:
			all = append(all, p.Port.String())
		default:
			all = append(all, p.Port.String()+"/"+string(*p.Protocol))
		}
	}
	return all
}
