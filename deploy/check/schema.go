package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsinstall "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchinstall "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	coreinstall "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkinginstall "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyinstall "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	"sigs.k8s.io/yaml"
)

// crds has, by API group, the module whose release holds the group's CustomResourceDefinitions.
var crds = map[string]string{"keda.sh": "github.com/kedacore/keda/v2@v2.18.0"}

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, install := range []func(*runtime.Scheme){
		coreinstall.Install, appsinstall.Install, batchinstall.Install, networkinginstall.Install, policyinstall.Install,
	} {
		install(s)
	}
	return s
}()

var decoder = serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()

// decode reads a manifest as the API server does, defaults filled in, and tells all that the server
// would refuse. The object is nil if there is no type for it.
func decode(m manifest) (object runtime.Object, wrong []string) {
	object, _, err := decoder.Decode([]byte(m.text), nil, nil)
	switch {
	case runtime.IsNotRegisteredError(err):
		return nil, invalidCustom(m)
	case runtime.IsStrictDecodingError(err): // the rest of it has been read
		strict, _ := runtime.AsStrictDecodingError(err)
		for _, err := range strict.Errors() {
			wrong = append(wrong, err.Error()+": correct its name, or take it out")
		}
	case err != nil:
		return nil, []string{err.Error()}
	}
	scheme.Default(object)
	internal, err := scheme.ConvertToVersion(object, runtime.InternalGroupVersioner)
	if err != nil {
		return nil, append(wrong, err.Error())
	}
	for _, err := range invalid(internal) {
		wrong = append(wrong, err.Error())
	}
	return object, wrong
}

// invalid is what the API server answers to the creation of an object.
func invalid(object runtime.Object) field.ErrorList {
	var strict corevalidation.PodValidationOptions
	switch o := object.(type) {
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o)
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o)
	case *core.PersistentVolumeClaim:
		return corevalidation.ValidatePersistentVolumeClaim(o, corevalidation.PersistentVolumeClaimSpecValidationOptions{})
	case *core.Secret:
		return corevalidation.ValidateSecret(o)
	case *core.Service:
		if o.Spec.ClusterIP != "" { // the server writes it here, too
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		}
		return corevalidation.ValidateServiceCreate(o)
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(o, strict)
	case *apps.StatefulSet:
		// The server looks at the template when it makes pods, and then nobody is there to read it.
		pods := o.Spec.Template.DeepCopy()
		for _, claim := range o.Spec.VolumeClaimTemplates {
			pods.Spec.Volumes = append(pods.Spec.Volumes, core.Volume{Name: claim.Name, VolumeSource: core.VolumeSource{
				PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name}}})
		}
		return append(appsvalidation.ValidateStatefulSet(o, strict),
			corevalidation.ValidatePodTemplateSpec(pods, field.NewPath("spec", "template"), strict)...)
	case *batch.Job: // as a template: the server makes the selector
		return batchvalidation.ValidateJobTemplateSpec(&batch.JobTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}, nil, strict)
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.NetworkPolicyValidationOptions{})
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{})
	}
	return field.ErrorList{field.InternalError(nil, fmt.Errorf("nothing validates a %T: give it a case in deploy/check/schema.go", object))}
}

func invalidCustom(m manifest) (wrong []string) {
	var custom map[string]any
	if err := yaml.UnmarshalStrict([]byte(m.text), &custom); err != nil {
		return []string{err.Error()}
	}
	schemas, err := customSchemas()
	if err != nil {
		return []string{err.Error()}
	}
	kind := schema.FromAPIVersionAndKind(fmt.Sprint(custom["apiVersion"]), fmt.Sprint(custom["kind"]))
	s := schemas[kind]
	if s == nil {
		return []string{fmt.Sprintf("apiVersion, kind: %v is known to nobody: correct it, or name its module in crds of deploy/check/schema.go", kind)}
	}
	for _, err := range validate.NewSchemaValidator(s, nil, "", strfmt.Default).Validate(custom).Errors {
		wrong = append(wrong, err.Error())
	}
	return wrong
}

// customSchemas are the schemas of the CRDs, which the modules are downloaded for; none is compiled.
var customSchemas = sync.OnceValues(func() (map[schema.GroupVersionKind]*spec.Schema, error) {
	all := map[schema.GroupVersionKind]*spec.Schema{}
	for group, module := range crds {
		out, err := exec.Command("go", "mod", "download", "-json", module).Output()
		var at struct{ Dir, Error string }
		if json.Unmarshal(out, &at) != nil || err != nil {
			return nil, fmt.Errorf("go mod download %s: %w: %s", module, err, at.Error)
		}
		files, err := filepath.Glob(filepath.Join(at.Dir, "config", "crd", "bases", group+"_*.yaml"))
		if err != nil || len(files) == 0 {
			return nil, errors.Join(fmt.Errorf("%s has no CRD of %s", module, group), err)
		}
		for _, file := range files {
			if err := readCRD(all, file); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return all, nil
})

func readCRD(all map[schema.GroupVersionKind]*spec.Schema, file string) error {
	var crd struct {
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema *spec.Schema }
			}
		}
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, &crd)
	}
	for _, v := range crd.Spec.Versions {
		closeFields(v.Schema.OpenAPIV3Schema)
		all[schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}] = v.Schema.OpenAPIV3Schema
	}
	return err
}

// closeFields lets a schema refuse fields that it does not name: the API server would drop them.
func closeFields(s *spec.Schema) {
	if open, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); len(s.Properties) > 0 && s.AdditionalProperties == nil && !open {
		s.AdditionalProperties = &spec.SchemaOrBool{Allows: false}
	}
	for name, p := range s.Properties {
		closeFields(&p)
		s.Properties[name] = p
	}
	if s.Items != nil && s.Items.Schema != nil {
		closeFields(s.Items.Schema)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		closeFields(s.AdditionalProperties.Schema)
	}
}
