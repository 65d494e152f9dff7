package check

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const clients = "KAFKA_SASL_USERNAME KAFKA_SASL_PASSWORD SCHEMA_REGISTRY_USERNAME SCHEMA_REGISTRY_PASSWORD"

// external are the Secrets that production refers to and the keys that they may have. Who runs it makes them:
// deploy/README.md has the same list.
var external = map[string]string{
	"order":      "DATABASE_URL " + clients,
	"inventory":  "DATABASE_URL " + clients,
	"email":      "DATABASE_URL SMTP_USERNAME SMTP_PASSWORD " + clients,
	"console":    clients,
	"provision":  clients,
	"keda":       "username password",
	"private-ca": "ca.crt",
}

// refer wants a ConfigMap or Secret to be there with a key, if one is named, and returns its keys.
func (o *overlay) refer(id, field, kind, name, key string) (keys []string) {
	switch x := o.objects[kind+"/"+name].(type) {
	case *corev1.ConfigMap:
		keys = sorted(x.Data)
	case *corev1.Secret:
		keys = sorted(x.Data)
	default:
		found := kind == "Secret" && !o.local() && external[name] != ""
		o.want(found, id, "%s: there is no %s %s; make it, or list it in external of deploy/check/references.go and in deploy/README.md", field, kind, name)
		keys = strings.Fields(external[name])
	}
	o.want(key == "" || slices.Contains(keys, key), id, "%s: the %s %s has no key %s; it has %v", field, kind, name, key, keys)
	return keys
}

// checkReferences looks at all that a pod takes from elsewhere, and at the names of its variables.
func (o *overlay) checkReferences(p pod) {
	for field, c := range p.containers() {
		names := sorted(o.environment(c))
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef != nil {
				o.refer(p.id, field+".envFrom", "ConfigMap", from.ConfigMapRef.Name, "")
			}
			if from.SecretRef != nil {
				names = append(names, o.refer(p.id, field+".envFrom", "Secret", from.SecretRef.Name, "")...)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				o.refer(p.id, field+".env["+e.Name+"]", "ConfigMap", e.ValueFrom.ConfigMapKeyRef.Name, e.ValueFrom.ConfigMapKeyRef.Key)
			}
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				o.refer(p.id, field+".env["+e.Name+"]", "Secret", e.ValueFrom.SecretKeyRef.Name, e.ValueFrom.SecretKeyRef.Key)
			}
		}
		if p.program(c) { // the variables of others are theirs
			o.checkVariables(p, c, field, names)
		}
	}
	for _, v := range p.Spec.Volumes {
		field := "volumes[" + v.Name + "]"
		switch {
		case v.ConfigMap != nil:
			o.refer(p.id, field, "ConfigMap", v.ConfigMap.Name, "")
		case v.Secret != nil:
			o.refer(p.id, field, "Secret", v.Secret.SecretName, "")
			for _, item := range v.Secret.Items {
				o.refer(p.id, field, "Secret", v.Secret.SecretName, item.Key)
			}
		case v.PersistentVolumeClaim != nil:
			claim := v.PersistentVolumeClaim.ClaimName
			o.want(o.objects["PersistentVolumeClaim/"+claim] != nil, p.id, "%s: there is no PersistentVolumeClaim %s; make it", field, claim)
		default:
			o.want(v.EmptyDir != nil, p.id, "%s is of a kind that nothing looks at here: give it a case in deploy/check/references.go", field)
		}
	}
}

// environment is what a container is told by its env and by ConfigMaps.
func (o *overlay) environment(c corev1.Container) map[string]string {
	all := map[string]string{}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil {
			continue
		}
		if x, ok := o.objects["ConfigMap/"+from.ConfigMapRef.Name].(*corev1.ConfigMap); ok {
			maps.Copy(all, x.Data)
		}
	}
	for _, e := range c.Env {
		all[e.Name] = e.Value
	}
	return all
}

// inside is an address that may be in the namespace: service:port, or pod.service:port.
var inside = regexp.MustCompile(`(?:^|[,=/@])([a-z][a-z0-9-]*)(?:\.([a-z][a-z0-9-]*))?:(\d+)(?:[,/]|$)`)

// answers tells whether somebody has an address. With two labels it may be in another namespace or
// domain, which nothing here knows; it is ours if either label is that of a replica, or the second
// is the namespace.
func (o *overlay) answers(host, domain string, port int32) bool {
	governs := slices.ContainsFunc(o.pods, func(p pod) bool { return p.governor != "" && p.governor == domain })
	replica := slices.IndexFunc(o.pods, func(p pod) bool { return p.governor != "" && p.has(host) })
	switch {
	case domain == "" || o.objects["Namespace/"+domain] != nil:
	case governs || replica >= 0:
		if replica < 0 || o.pods[replica].governor != domain {
			return false
		}
		host = domain
	default:
		return true
	}
	s, ok := o.objects["Service/"+host].(*corev1.Service)
	return ok && slices.ContainsFunc(s.Spec.Ports, func(has corev1.ServicePort) bool { return has.Port == port })
}

// checkVariables wants each variable to be one that a program reads, and each address in the
// namespace to be somebody's.
func (o *overlay) checkVariables(p pod, c corev1.Container, field string, names []string) {
	values := o.environment(c)
	text := strings.Join(slices.Collect(maps.Values(values)), "\n")
	for _, name := range names {
		_, known := o.known.variables[name]
		_, file := o.known.variables[strings.TrimSuffix(name, "_FILE")]
		known = known || file || strings.HasPrefix(name, "OTEL_") || name == "GOMEMLIMIT" || strings.Contains(text, "$("+name+")")
		o.want(known, p.id, "%s.env[%s] is read by no program: README.md lists what is", field, name)
		for _, m := range inside.FindAllStringSubmatch(values[name], -1) {
			ok := o.answers(m[1], m[2], intstr.Parse(m[3]).IntVal)
			o.want(ok, p.id, "%s.env[%s] names %s, which is nobody's address: correct it", field, name, strings.Trim(m[0], ",=/@"))
		}
	}
}

// has tells whether a StatefulSet may have the replica of this name.
func (p pod) has(name string) bool {
	_, set, _ := strings.Cut(p.id, "/")
	ordinal := intstr.Parse(strings.TrimPrefix(name, set+"-"))
	return ordinal.Type == intstr.Int && ordinal.IntValue() < p.most
}

func (o *overlay) checkServices() {
	for id, s := range all[*corev1.Service](o) {
		o.want(s.Spec.Type == corev1.ServiceTypeClusterIP && s.Spec.ExternalIPs == nil, id, "spec.type: make it ClusterIP; what comes from outside comes by an ingress")
		pods := o.selected(&metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		o.want(len(s.Spec.Selector) > 0 && len(pods) > 0, id, "spec.selector takes no pod: correct it")
		for _, p := range pods {
			for _, port := range s.Spec.Ports {
				o.want(portOf(p, port.TargetPort) != 0, id, "spec.ports[%s].targetPort %v is no port of %s: correct it", port.Name, &port.TargetPort, p.id)
			}
		}
	}
	for _, p := range o.pods {
		s, ok := o.objects["Service/"+p.governor].(*corev1.Service)
		o.want(p.governor == "" || ok && s.Spec.ClusterIP == corev1.ClusterIPNone, p.id, "spec.serviceName: there is no headless Service %s, which would name the pods; make one, or leave it out", p.governor)
	}
}

// checkBudgets wants each budget to let one pod go at least, and one stay.
func (o *overlay) checkBudgets() {
	for id, b := range all[*policyv1.PodDisruptionBudget](o) {
		pods := o.selected(b.Spec.Selector)
		o.want(len(pods) > 0, id, "spec.selector takes no pod: correct it")
		for _, p := range pods {
			goes, stays := 0, 0
			if b.Spec.MinAvailable != nil {
				stays, _ = intstr.GetScaledValueFromIntOrPercent(b.Spec.MinAvailable, p.least, true)
				goes = p.least - stays
			} else if b.Spec.MaxUnavailable != nil {
				goes, _ = intstr.GetScaledValueFromIntOrPercent(b.Spec.MaxUnavailable, p.least, true)
				stays = p.least - goes
			}
			o.want(goes > 0 && stays > 0, id, "lets %d of %s go and %d stay: at least 1 each, or a node cannot be drained, or takes all along", goes, p.id, stays)
		}
	}
}

// checkScaling looks at what KEDA's resources refer to, and lets the pods have their counts.
func (o *overlay) checkScaling() {
	for _, id := range sorted(o.custom) {
		c := o.custom[id]
		target := c.Spec.ScaleTargetRef.Kind + "/" + c.Spec.ScaleTargetRef.Name
		at := slices.IndexFunc(o.pods, func(p pod) bool { return p.id == target })
		o.want(at >= 0 || target == "/", id, "spec.scaleTargetRef: there is no %s; correct it", target)
		if at >= 0 {
			p := &o.pods[at]
			o.want(!p.counted, target, "spec.replicas: leave it out, %s counts; each kubectl apply would set it back", id)
			p.least, p.most = c.Spec.MinReplicaCount, c.Spec.MaxReplicaCount
		}
		for _, t := range c.Spec.Triggers {
			name := t.AuthenticationRef.Name
			o.want(name == "" || o.custom["TriggerAuthentication/"+name].Metadata.Name != "", id, "spec.triggers.authenticationRef: there is no TriggerAuthentication %s; correct it", name)
		}
		for _, ref := range c.Spec.SecretTargetRef {
			o.refer(id, "spec.secretTargetRef", "Secret", ref.Name, ref.Key)
		}
	}
}
