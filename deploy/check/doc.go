// Package check judges the manifests of deploy before a cluster does: every overlay, and
// production with each component and with all of them, is rendered as kubectl does it, read as the
// API server does it, and held against the rules of this repository. It is a module of its own, so
// that nothing else depends on Kubernetes; "make manifests" runs it, with Go and nothing else.
//
// # Why the API server's own code, and no JSON schemas
//
// A schema tells fields and types. Strict decoding into the API's structs tells these, too, and the
// API server's validation (k8s.io/kubernetes/pkg/apis) all that it would answer to kubectl apply:
// a selector that misses its template, a volume that is mounted but not there, a number out of its
// range. Schemas made from api/openapi-spec would see none of that. All of it compiles in some 75 s
// of one processor, once; two thirds of that are for Pod Security and kustomize, which are needed
// anyway. The strategies in pkg/registry would add the server's warnings for 90 s more. Custom
// resources are held against the schema in their operator's own release, with the validator that
// the API server has for them.
//
// # What it cannot see
//
// Whether an image is there and runs so, whether limits suffice, what webhooks say, the CEL rules of
// custom resources, whether the cluster's network enforces NetworkPolicies, and what comes by
// port-forward, which no policy stops. An ipBlock is taken for what is outside, though pods may have
// such addresses. That no file holds the module's path is seen to by pkg/style_test.go.
package check
