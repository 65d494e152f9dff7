package check

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"k8s.io/utils/ptr"
)

// unprobed are the long-running pods without probes, each with its reason.
var unprobed = map[string]string{
	"console": "its process is a log of events, and serves nothing that could be asked",
}

// laptop is what all pods of the local overlay may take together.
var laptop = resource.MustParse("2252Mi")

// restricted is what the namespaces enforce, in the version of the code that judges here.
var restricted = api.LevelVersion{Level: api.LevelRestricted, Version: api.MajorMinorVersion(1, 33)}

var podSecurity = func() policy.Evaluator {
	e, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		panic(err)
	}
	return e
}()

const (
	nameLabel      = "app.kubernetes.io/name"
	componentLabel = "app.kubernetes.io/component"
	partOfLabel    = "app.kubernetes.io/part-of"
)

// shared are the kinds whose objects belong to no program alone: they have no name and component.
var shared = []string{"ConfigMap", "Namespace", "NetworkPolicy", "Secret", "TriggerAuthentication"}

func (o *overlay) checkLabels(id, field string, has map[string]string) {
	kind, _, _ := strings.Cut(id, "/")
	for _, label := range []string{partOfLabel, nameLabel, componentLabel} {
		o.want(has[label] != "" || label != partOfLabel && slices.Contains(shared, kind), id, "%s has no %s: give it one", field, label)
	}
}

// password finds one in a URL, or beside its name.
var password = regexp.MustCompile(`://[^\s/:@]*:[^\s/@]+@|(PASSWORD|TOKEN)(: |\n +value: )[^\s{]`)

func (o *overlay) checkText(m manifest) {
	enforces := strings.Contains(m.text, "\n    pod-security.kubernetes.io/enforce: restricted\n")
	o.want(enforces || !strings.HasPrefix(m.id, "Namespace/"), m.id, "metadata.labels: let pod-security.kubernetes.io/enforce be restricted, as it is here")
	o.want(!strings.Contains(m.text, o.known.module), m.id, "holds the path of the Go module: rename that; renaming a clone must change nothing here")
	secret := strings.Contains(m.text, "kind: Secret\n") || password.MatchString(m.text)
	o.want(!secret || o.local(), m.id, "holds a secret: refer to a Secret, which is made where it is kept")
}

// checkPod holds a pod against Pod Security, and against what that leaves open.
func (o *overlay) checkPod(p pod) {
	for _, r := range podSecurity.EvaluatePod(restricted, &p.ObjectMeta, &p.Spec) {
		o.want(r.Allowed, p.id, "Pod Security: %s: %s", r.ForbiddenReason, r.ForbiddenDetail)
	}
	o.checkLabels(p.id, "spec.template.metadata.labels", p.Labels)
	o.want(!ptr.Deref(p.Spec.AutomountServiceAccountToken, true), p.id, "automountServiceAccountToken: set it to false, no program asks the API server")
	o.want(!ptr.Deref(p.Spec.EnableServiceLinks, true), p.id, "enableServiceLinks: set it to false, the variables it adds may have the names of ours")
	s := ptr.Deref(p.Spec.SecurityContext, corev1.PodSecurityContext{})
	o.want(ptr.Deref(s.RunAsUser, 0) > 0 && ptr.Deref(s.RunAsGroup, 0) > 0, p.id, "securityContext.runAsUser, runAsGroup: set both, to other than 0")
	for field, c := range p.containers() {
		o.checkContainer(p, c, field)
		o.checkStop(p, c, field)
		if _, ok := unprobed[p.name()]; !ok && p.lasting && strings.HasPrefix(field, "containers") {
			o.checkProbes(p, c, field)
		}
		if p.service() && p.program(c) {
			o.checkService(p, c, field)
		}
		if p.program(c) && !o.local() {
			o.want(encrypted(o.environment(c)), p.id, "%s.env[KAFKA_TLS]: set it to true, or give KAFKA_TLS_CA_FILE; passwords and orders would go over the network as they are", field)
		}
	}
	if p.service() && !o.local() {
		o.checkSpread(p)
	}
}

// checkService wants of a service what it was written for.
func (o *overlay) checkService(p pod, c corev1.Container, field string) {
	stop := ptr.Deref(ptr.Deref(c.Lifecycle, corev1.Lifecycle{}).PreStop, corev1.LifecycleHandler{})
	o.want(ptr.Deref(stop.Sleep, corev1.SleepAction{}).Seconds > 0, p.id, "%s.lifecycle.preStop: let it sleep, requests come until the endpoints have forgotten the pod", field)
	ready, start := ptr.Deref(c.ReadinessProbe, corev1.Probe{}), ptr.Deref(c.StartupProbe, corev1.Probe{})
	o.want(ready.TimeoutSeconds >= 3, p.id, "%s.readinessProbe.timeoutSeconds: set it to 3 at least, the checks behind /readyz have 2 s", field)
	o.want(start.FailureThreshold*start.PeriodSeconds >= 30, p.id, "%s.startupProbe: let failureThreshold times periodSeconds be 30 s at least, or a start on a busy node is killed", field)
	_, limited := o.environment(c)["GOMEMLIMIT"]
	o.want(limited, p.id, "%s.env[GOMEMLIMIT]: set it below resources.limits.memory, the collector does not know that limit", field)
	o.want(namesPod(c.Env, "KAFKA_INSTANCE_ID"), p.id, "%s.env[KAFKA_INSTANCE_ID]: take it from metadata.name, by a variable that stands before it; no two pods may share one, and a pod that is back must have its own", field)
}

// namesPod tells whether a variable has the pod's name in it. Only what stands before it is filled in.
func namesPod(env []corev1.EnvVar, name string) bool {
	at := slices.IndexFunc(env, func(e corev1.EnvVar) bool { return e.Name == name })
	if at < 0 {
		return false
	}
	if from := env[at].ValueFrom; from != nil {
		return from.FieldRef != nil && from.FieldRef.FieldPath == "metadata.name"
	}
	return slices.ContainsFunc(env[:at], func(e corev1.EnvVar) bool {
		return strings.Contains(env[at].Value, "$("+e.Name+")") && namesPod(env[:at], e.Name)
	})
}

// encrypted tells whether pkg/kafka speaks TLS with these variables: each of the files turns it on, too.
func encrypted(env map[string]string) bool {
	on, _ := strconv.ParseBool(env["KAFKA_TLS"])
	return on || env["KAFKA_TLS_CA_FILE"]+env["KAFKA_TLS_CERT_FILE"]+env["KAFKA_TLS_KEY_FILE"] != ""
}

// checkSpread wants the replicas not to go together: neither when a node is drained nor when one fails.
func (o *overlay) checkSpread(p pod) {
	budget := false
	for _, b := range all[*policyv1.PodDisruptionBudget](o) {
		budget = budget || matches(b.Spec.Selector, p.Labels)
	}
	o.want(budget, p.id, "has no PodDisruptionBudget: make one that selects its pods, or a drain takes all replicas at once")
	spread := slices.ContainsFunc(p.Spec.TopologySpreadConstraints, func(c corev1.TopologySpreadConstraint) bool { return matches(c.LabelSelector, p.Labels) })
	o.want(spread, p.id, "topologySpreadConstraints: give it one that selects its pods, or all replicas may be on one node")
}

var version = regexp.MustCompile(`[^/]:[^/:]+$`) // a digest has a colon, too

func (o *overlay) checkContainer(p pod, c corev1.Container, field string) {
	o.want(version.MatchString(c.Image) && !strings.HasSuffix(c.Image, ":latest"), p.id, "%s.image %s: give it a version as tag, or a digest", field, c.Image)
	o.want(c.ImagePullPolicy == corev1.PullIfNotPresent, p.id, "%s.imagePullPolicy: set it to IfNotPresent, or nothing starts while the registry is away", field)
	s := ptr.Deref(c.SecurityContext, corev1.SecurityContext{})
	o.want(ptr.Deref(s.ReadOnlyRootFilesystem, false), p.id, "%s.securityContext.readOnlyRootFilesystem: set it to true, and mount an emptyDir where it writes", field)
	o.want(!c.Resources.Requests.Cpu().IsZero(), p.id, "%s.resources.requests.cpu: set it, the scheduler goes by it", field)
	o.want(!c.Resources.Requests.Memory().IsZero(), p.id, "%s.resources.requests.memory: set it, the scheduler goes by it", field)
	o.want(!c.Resources.Limits.Memory().IsZero(), p.id, "%s.resources.limits.memory: set it, or what leaks takes the node along", field)
	if text, ok := o.environment(c)["GOMEMLIMIT"]; ok {
		limit, err := resource.ParseQuantity(strings.TrimSuffix(text, "B")) // the runtime says MiB, Kubernetes Mi
		o.want(err == nil && limit.Cmp(*c.Resources.Limits.Memory()) < 0, p.id, "%s.env[GOMEMLIMIT] %s: set it below resources.limits.memory, or the kernel kills before the collector works", field, text)
	}
}

func (o *overlay) checkProbes(p pod, c corev1.Container, field string) {
	o.want(c.LivenessProbe != nil, p.id, "%s.livenessProbe: set it, or name the reason in unprobed of deploy/check/policy.go", field)
	o.want(c.ReadinessProbe != nil, p.id, "%s.readinessProbe: set it, or name the reason in unprobed of deploy/check/policy.go", field)
	answers := func(name, path string, probe *corev1.Probe) {
		fits := probe == nil || probe.HTTPGet != nil && probe.HTTPGet.Path == path && portOf(p, probe.HTTPGet.Port) == 8080
		o.want(fits || !p.service(), p.id, "%s.%s: GET %s on port 8080 is what a service answers", field, name, path)
	}
	answers("livenessProbe", "/livez", c.LivenessProbe)
	answers("readinessProbe", "/readyz", c.ReadinessProbe)
	answers("startupProbe", "/livez", c.StartupProbe)
}

// checkStop adds up what a container may need to stop.
func (o *overlay) checkStop(p pod, c corev1.Container, field string) {
	var needed time.Duration
	if p.service() {
		text, ok := o.environment(c)["SHUTDOWN_TIMEOUT"]
		if !ok {
			text = o.known.variables["SHUTDOWN_TIMEOUT"]
		}
		var err error
		needed, err = time.ParseDuration(text)
		o.want(err == nil, p.id, "%s.env[SHUTDOWN_TIMEOUT] %q: write a time such as 25s", field, text)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		sleep := c.Lifecycle.PreStop.Sleep
		o.want(sleep != nil, p.id, "%s.lifecycle.preStop: make it a sleep, how long another takes cannot be told", field)
		needed += time.Duration(ptr.Deref(sleep, corev1.SleepAction{}).Seconds) * time.Second
	}
	grace := time.Duration(*p.Spec.TerminationGracePeriodSeconds) * time.Second
	o.want(needed < grace, p.id, "terminationGracePeriodSeconds: raise it above preStop and SHUTDOWN_TIMEOUT, %v, or the stop is a kill", needed)
}

// memory is the sum of all limits. Containers that only begin a pod run one by one, before the others.
func (o *overlay) memory() (sum resource.Quantity) {
	for _, p := range o.pods {
		var most, all resource.Quantity
		for _, c := range p.Spec.InitContainers {
			if c.Resources.Limits.Memory().Cmp(most) > 0 {
				most = *c.Resources.Limits.Memory()
			}
		}
		for _, c := range p.Spec.Containers {
			all.Add(*c.Resources.Limits.Memory())
		}
		if all.Cmp(most) > 0 {
			most = all
		}
		most.Mul(int64(p.most))
		sum.Add(most)
	}
	return sum
}

// portOf is the number of a container's port; 0 if no container has it.
func portOf(p pod, port intstr.IntOrString) int32 {
	for _, c := range p.Spec.Containers {
		for _, has := range c.Ports {
			if port == intstr.FromString(has.Name) || port == intstr.FromInt32(has.ContainerPort) {
				return has.ContainerPort
			}
		}
	}
	return 0
}
