package check

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// overlay is a rendering as the rules look at it. Objects go by Kind/name.
type overlay struct {
	name       string // local, production, production.keda
	known      source
	objects    map[string]runtime.Object
	custom     map[string]custom
	pods       []pod
	complaints []string
}

// pod is what a Deployment, a StatefulSet or a Job makes.
type pod struct {
	id string // of its maker
	corev1.PodTemplateSpec
	least, most int    // replicas
	counted     bool   // they stand in the manifest
	lasting     bool   // it is not to end
	governor    string // a StatefulSet's serviceName
}

func (p pod) name() string  { return p.Labels[nameLabel] }
func (p pod) service() bool { return p.Labels[componentLabel] == "service" }

// program tells whether a container is one of this repository's programs, whatever its image is
// called: the pod's label says that it has one, which is named like the pod or "service". If no
// container is, it is the first.
func (p pod) program(c corev1.Container) bool {
	main := slices.IndexFunc(p.Spec.Containers, func(c corev1.Container) bool { return c.Name == "service" || c.Name == p.name() })
	ours := slices.Contains([]string{"service", "operator", "task"}, p.Labels[componentLabel])
	return ours && len(p.Spec.Containers) > 0 && p.Spec.Containers[max(main, 0)].Name == c.Name
}

// containers are all of a pod, by their fields.
func (p pod) containers() iter.Seq2[string, corev1.Container] {
	return func(yield func(string, corev1.Container) bool) {
		for _, c := range p.Spec.InitContainers {
			if !yield("initContainers["+c.Name+"]", c) {
				return
			}
		}
		for _, c := range p.Spec.Containers {
			if !yield("containers["+c.Name+"]", c) {
				return
			}
		}
	}
}

// custom has what the rules want to know of KEDA's resources.
type custom struct {
	Metadata metav1.ObjectMeta
	Spec     struct {
		ScaleTargetRef                   struct{ Kind, Name string }
		MinReplicaCount, MaxReplicaCount int
		Triggers                         []struct{ AuthenticationRef struct{ Name string } }
		SecretTargetRef                  []struct{ Name, Key string }
	}
}

// judge reads the manifests of an overlay and finds all that is wrong with them. A complaint names
// the object, the field, and what to do.
func judge(name string, known source, manifests []manifest) *overlay {
	o := &overlay{name: name, known: known, objects: map[string]runtime.Object{}, custom: map[string]custom{}}
	for _, m := range manifests {
		o.read(m)
	}
	o.checkScaling()
	for _, p := range o.pods {
		o.checkPod(p)
		o.checkReferences(p)
	}
	o.checkServices()
	o.checkBudgets()
	o.checkFlows()
	memory := o.memory()
	o.want(!o.local() || memory.Cmp(laptop) <= 0, "resources.limits.memory", "of all pods are %s, more than %s: lower some", &memory, &laptop)
	return o
}

// local tells whether it is the overlay for a laptop: all others are somebody's production.
func (o *overlay) local() bool { return o.name == "local" }

// want complains unless something is so.
func (o *overlay) want(so bool, id, format string, args ...any) {
	if !so {
		o.complaints = append(o.complaints, o.name+": "+id+" "+fmt.Sprintf(format, args...))
	}
}

func (o *overlay) read(m manifest) {
	object, wrong := decode(m)
	for _, w := range wrong {
		o.want(false, m.id, "%s", w)
	}
	add := func(template corev1.PodTemplateSpec, replicas *int32, lasting bool, governor string) {
		n := int(ptr.Deref(replicas, 1))
		o.pods = append(o.pods, pod{m.id, template, n, n, strings.Contains(m.text, "\n  replicas: "), lasting, governor})
	}
	switch x := object.(type) {
	case *appsv1.Deployment:
		add(x.Spec.Template, x.Spec.Replicas, true, "")
	case *appsv1.StatefulSet:
		add(x.Spec.Template, x.Spec.Replicas, true, x.Spec.ServiceName)
	case *batchv1.Job:
		add(x.Spec.Template, x.Spec.Parallelism, false, "")
	}
	var c custom
	if object != nil {
		o.objects[m.id] = object
		about, _ := meta.Accessor(object)
		c.Metadata.Labels = about.GetLabels()
	} else if err := yaml.Unmarshal([]byte(m.text), &c); err == nil { // or else decode has told
		o.custom[m.id] = c
	}
	o.checkLabels(m.id, "metadata.labels", c.Metadata.Labels)
	o.checkText(m)
}

// all are the objects of a type.
func all[T runtime.Object](o *overlay) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		for _, id := range sorted(o.objects) {
			if x, ok := o.objects[id].(T); ok && !yield(id, x) {
				return
			}
		}
	}
}

// selected are the pods that a selector takes. What cannot be one takes none; decode has told.
func (o *overlay) selected(s *metav1.LabelSelector) (all []pod) {
	for _, p := range o.pods {
		if matches(s, p.Labels) {
			all = append(all, p)
		}
	}
	return all
}

func matches(s *metav1.LabelSelector, has map[string]string) bool {
	got, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && got.Matches(labels.Set(has))
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
