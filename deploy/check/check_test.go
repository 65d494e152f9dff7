package check

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// load has a copy of production, too, filled in as somebody else would.
var load = sync.OnceValues(func() (map[string][]manifest, error) {
	all, err := render("..")
	for _, m := range all["production"] {
		m.text = filled.Replace(m.text)
		all["a copy"] = append(all["a copy"], m)
	}
	return all, err
})

var filled = strings.NewReplacer(
	"192.0.2.0/28", "10.1.0.0/16", "192.0.2.64/32", "2001:db8::25/128",
	"metadata.name: ingress", "metadata.name: gateways", "metadata.name: monitoring", "metadata.name: prometheus",
	"images.example.net/keyline-", "images.example.org/shop/",
	`KAFKA_TLS: "true"`, "KAFKA_TLS_CA_FILE: /etc/private-ca/ca.crt",
	"kafka-1.example.com:9093,kafka-2.example.com:9093,kafka-3.example.com:9093", "my-cluster-kafka-bootstrap.kafka:9093",
	"smtp.example.com:587", "smtp.corp:587",
)

var loadSource = sync.OnceValues(func() (source, error) { return readSource("../..") })

func overlays(t *testing.T) (map[string][]manifest, source) {
	t.Helper()
	all, err := load()
	if err != nil || len(all["production.keda"]) <= len(all["production"]) {
		t.Fatalf("rendered %v: %v", sorted(all), err)
	}
	known, err := loadSource()
	if err != nil || known.module == "" || known.variables["SHUTDOWN_TIMEOUT"] == "" {
		t.Fatalf("the module is %q, its variables are %v: %v", known.module, known.variables, err)
	}
	return all, known
}

func TestOverlays(t *testing.T) {
	t.Parallel()
	all, known := overlays(t)
	for name, manifests := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := judge(name, known, manifests)
			for _, c := range o.complaints {
				t.Error(c)
			}
			memory := o.memory()
			fmt.Printf("%s: %d objects, %d flows, memory limits of %.2f GiB\n", name, len(manifests), len(o.allowed()), memory.AsApproximateFloat64()/(1<<30))
		})
	}
}

// Who runs production finds all Secrets to make in one place.
func TestExternal(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range external {
		for _, word := range append(strings.Fields(keys), name) {
			if !strings.Contains(string(text), "`"+word+"`") {
				t.Errorf("deploy/README.md does not name `%s` of the Secret %s: say there what belongs into it", word, name)
			}
		}
	}
}

func lets(spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: added\n  namespace: keyline\n  labels: {app.kubernetes.io/part-of: keyline}\nspec:\n  podSelector: {}\n  " + spec
}

// The rules have teeth: each row breaks one manifest of an overlay that is in order.
func TestJudge_broken(t *testing.T) {
	t.Parallel()
	all, known := overlays(t)
	const order, web = "StatefulSet/order", "containers[service]."
	const probe = "livenessProbe:\n          failureThreshold: 3\n          httpGet:\n            path: /livez\n            port: http\n"
	const ready = "path: /readyz\n            port: http\n          periodSeconds: 2\n          timeoutSeconds: 3\n"
	const named = "        - name: POD_NAME\n          valueFrom:\n            fieldRef:\n              fieldPath: metadata.name\n"
	const instance = "        - name: KAFKA_INSTANCE_ID\n          value: $(POD_NAME)\n"
	for _, tt := range []struct {
		overlay, object string // one that ends with a dash has a hash behind it, one with a plus is added
		old, new        string // what is replaced in its YAML; both empty: it is removed
		want            string // a part of the complaint
	}{
		// The API server's answers.
		{"local", order, "readinessProbe:", "readynessProbe:", `unknown field "spec.template.spec.containers[0].readynessProbe"`},
		{"local", order, "periodSeconds: 10", "periodSeconds: ten", "json: cannot unmarshal string"},
		{"local", order, "  replicas: 1\n", "  replicas: 1\n  replicas: 2\n", `key "replicas" already set`},
		{"local", order, "matchLabels:\n      app.kubernetes.io/name: order", "matchLabels:\n      app.kubernetes.io/name: orders", "`selector` does not match template `labels`"},
		{"local", "StatefulSet/postgres", "mountPath: /store\n          name: store", "mountPath: /store\n          name: stores", `volumeMounts[0].name: Not found: "stores"`},
		{"local", "Service/order", "port: 8080", "port: 80800", "must be between 1 and 65535"},
		{"local", "Job/provision", "restartPolicy: OnFailure", "restartPolicy: Always", "template.spec.restartPolicy"},
		{"local", "Service/order", "kind: Service", "kind: Sevrice", "known to nobody"},
		{"production.keda", "ScaledObject/order", "minReplicaCount", "minReplicasCount", "spec.minReplicasCount in body is a forbidden property"},
		{"production.keda", "ScaledObject/order", "maxReplicaCount: 6", "maxReplicaCount: six", "spec.maxReplicaCount in body must be of type integer"},

		// Pod Security.
		{"local", order, "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "Pod Security: allowPrivilegeEscalation != false"},
		{"local", order, "drop:\n            - ALL", "drop:\n            - CHOWN", "Pod Security: unrestricted capabilities"},
		{"local", order, "seccompProfile:\n          type: RuntimeDefault", "seccompProfile:\n          type: Unconfined", "Pod Security: seccompProfile"},
		{"local", order, "runAsNonRoot: true", "runAsNonRoot: false", "Pod Security: runAsNonRoot != true"},
		{"local", order, "enableServiceLinks: false", "enableServiceLinks: false\n      hostNetwork: true", "Pod Security: host namespaces"},
		{"local", order, "containerPort: 8081", "containerPort: 8081\n          hostPort: 8081", "Pod Security: hostPort"},
		{"local", "StatefulSet/postgres", "- emptyDir:\n          sizeLimit: 100Mi", "- hostPath:\n          path: /", `uses restricted volume type "hostPath"`},

		{"local", "Namespace/keyline", "enforce: restricted", "enforce: baseline", "let pod-security.kubernetes.io/enforce be restricted"},

		// Policy.
		{"local", order, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", web + "securityContext.readOnlyRootFilesystem"},
		{"local", order, "automountServiceAccountToken: false", "automountServiceAccountToken: true", "automountServiceAccountToken"},
		{"local", order, "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"},
		{"local", order, "runAsGroup: 65532", "runAsGroup: 0", "runAsGroup"},
		{"local", order, "runAsUser: 65532", "supplementalGroups: [1]", "runAsUser"},
		{"local", order, "cpu: 20m", "ephemeral-storage: 1Mi", "resources.requests.cpu"},
		{"local", order, "cpu: 20m\n            memory: 48Mi", "cpu: 20m", "resources.requests.memory"},
		{"local", order, "limits:\n            memory: 128Mi", "limits:\n            cpu: 1", "resources.limits.memory: set it"},
		{"local", order, "115MiB", "128MiB", "env[GOMEMLIMIT] 128MiB"},
		{"local", "StatefulSet/kafka", "memory: 640Mi", "memory: 1Gi", "of all pods are 2592Mi, more than 2252Mi"},
		{"local", order, "keyline-order:dev", "keyline-order", web + "image keyline-order: give it a version"},
		{"local", order, "keyline-order:dev", "localhost:5000/keyline-order", "give it a version"},
		{"local", order, "keyline-order:dev", "keyline-order:latest", "give it a version"},
		{"local", order, "IfNotPresent", "Always", web + "imagePullPolicy"},
		{"local", order, "livenessProbe:", "startupProbe:", `key "startupProbe" already set`},
		{"local", "StatefulSet/kafka", "livenessProbe:", "lifecycle: {}\n        x:", "containers[kafka].livenessProbe: set it"},
		{"local", "StatefulSet/kafka", "readinessProbe:", "lifecycle: {}\n        x:", "containers[kafka].readinessProbe: set it"},
		{"local", order, "path: /readyz", "path: /livez", "readinessProbe: GET /readyz"},
		{"local", order, probe, strings.Replace(probe, "http\n", "admin\n", 1), "livenessProbe: GET /livez on port 8080"},
		{"local", order, "seconds: 5", "seconds: 10", "terminationGracePeriodSeconds: raise it above preStop and SHUTDOWN_TIMEOUT, 35s"},
		{"local", "ConfigMap/keyline-", "  LOG_FORMAT: json", "  SHUTDOWN_TIMEOUT: 40s", "SHUTDOWN_TIMEOUT, 45s"},
		{"local", "ConfigMap/keyline-", "  LOG_FORMAT: json", "  SHUTDOWN_TIMEOUT: soon", `env[SHUTDOWN_TIMEOUT] "soon"`},
		{"local", order, "sleep:\n              seconds: 5", "exec:\n              command: [sleep, '5']", "lifecycle.preStop: make it a sleep"},
		{"local", order, "preStop:", "postStart:", web + "lifecycle.preStop: let it sleep"},
		{"local", order, ready, strings.Replace(ready, "Seconds: 3", "Seconds: 2", 1), web + "readinessProbe.timeoutSeconds: set it to 3"},
		{"local", order, "failureThreshold: 60", "failureThreshold: 29", web + "startupProbe: let failureThreshold times periodSeconds be 30 s"},
		{"local", order, "startupProbe:", "startUpProbe:", web + "startupProbe: let failureThreshold times periodSeconds be 30 s"},
		{"local", order, "name: GOMEMLIMIT", "name: LOG_LEVEL", web + "env[GOMEMLIMIT]: set it"},
		{"local", order, "value: $(POD_NAME)", "value: order", web + "env[KAFKA_INSTANCE_ID]: take it from metadata.name"},
		{"local", order, "fieldPath: metadata.name", "fieldPath: spec.nodeName", web + "env[KAFKA_INSTANCE_ID]: take it from metadata.name"},
		{"local", order, named + instance, instance + named, web + "env[KAFKA_INSTANCE_ID]: take it from metadata.name"},
		{"production", order, "topologySpreadConstraints:", "topologySpreads:", order + " topologySpreadConstraints: give it one"},
		{"production", "ConfigMap/keyline-", "KAFKA_TLS: \"true\"", "KAFKA_TLS: \"false\"", order + " " + web + "env[KAFKA_TLS]: set it to true"},
		{"production", "ConfigMap/keyline-", "KAFKA_TLS: \"true\"", "LOG_LEVEL: info", "Job/provision containers[provision].env[KAFKA_TLS]: set it to true"},
		{"local", "ConfigMap/keyline-", "part-of", "part", "metadata.labels has no app.kubernetes.io/part-of"},
		{"local", "Service/order", "app.kubernetes.io/component: service", "a: b", "metadata.labels has no app.kubernetes.io/component"},
		{"local", order, "app.kubernetes.io/part-of: keyline\n    spec", "a: b\n    spec", "spec.template.metadata.labels has no app.kubernetes.io/part-of"},
		{"production", "ConfigMap/keyline-", "SMTP_TLS: starttls", "SMTP_PASSWORD: hello", "holds a secret"},
		{"production", "ConfigMap/keyline-", "https://registry", "https://me:hello@registry", "holds a secret"},
		{"production", order, "name: GOMEMLIMIT", "name: KAFKA_SASL_PASSWORD", "holds a secret"},
		{"production", "+Secret/added", "", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: order\n", "holds a secret"},
		{"local", "ConfigMap/keyline-", "json", known.module, "the path of the Go module"},

		// References.
		{"local", "ConfigMap/keyline-", "", "", "there is no ConfigMap keyline-"},
		{"local", "Secret/email-", "", "", "there is no Secret email-"},
		{"production", order, "name: order\n        image", "name: orders\n        image", "there is no Secret orders"},
		{"production.keda", "TriggerAuthentication/kafka", "key: username", "key: user", "the Secret keda has no key user"},
		{"local", "StatefulSet/postgres", "key: POSTGRES_PASSWORD", "key: PASSWORD", "has no key PASSWORD"},
		{"local", "StatefulSet/postgres", "key: databases.sql", "key: bases.sql", "has no key bases.sql"},
		{"local", "StatefulSet/postgres", "emptyDir:\n          sizeLimit: 100Mi", "persistentVolumeClaim: {claimName: pg}", "there is no PersistentVolumeClaim pg"},
		{"local", "StatefulSet/postgres", "emptyDir:\n          sizeLimit: 100Mi", "downwardAPI: {defaultMode: 256}", "volumes[scratch] is of a kind"},
		{"local", "Service/order", "targetPort: http", "targetPort: web", "targetPort web is no port of StatefulSet/order"},
		{"local", "Service/order", "targetPort: http", "targetPort: 80", "targetPort 80 is no port of StatefulSet/order"},
		{"local", "Service/order-replicas", "  selector:\n    app.kubernetes.io/name: order", "  selector:\n    app.kubernetes.io/name: orders", "spec.selector takes no pod"},
		{"local", "Service/order-replicas", "clusterIP: None", "clusterIP: \"\"", "spec.serviceName: there is no headless Service order-replicas"},
		{"local", "Service/order", "spec:", "spec:\n  type: NodePort", "make it ClusterIP"},
		{"local", "Service/order", "spec:", "spec:\n  type: LoadBalancer", "make it ClusterIP"},
		{"local", "ConfigMap/keyline-", "SMTP_ADDR", "SMTP_ADDRESS", "env[SMTP_ADDRESS] is read by no program"},
		{"a copy", "ConfigMap/keyline-", "LOG_FORMAT", "LOG_FORMATS", "StatefulSet/order containers[service].env[LOG_FORMATS] is read by no program"},
		{"a copy", "ConfigMap/keyline-", "LOG_FORMAT", "LOG_FORMATS", "Deployment/console containers[console].env[LOG_FORMATS] is read by no program"},
		{"a copy", "ConfigMap/keyline-", "LOG_FORMAT", "LOG_FORMATS", "Job/provision containers[provision].env[LOG_FORMATS] is read by no program"},
		{"local", "ConfigMap/keyline-", "kafka:9092", "kafka:9093", "env[KAFKA_BROKERS] names kafka:9093, which is nobody's address"},
		{"production", "Deployment/console", "email-1.email-replicas", "email-2.email-replicas", "env[ADMIN_URLS] names email-2.email-replicas:8081"},
		{"production", "Deployment/console", "email-1.email-replicas:8081", "email-1.email-replica:8081", "env[ADMIN_URLS] names email-1.email-replica:8081"},
		{"production", "Deployment/console", "email-1.email-replicas:8081", "email-1.email-replicas:8080", "env[ADMIN_URLS] names email-1.email-replicas:8080"},
		{"production", "Service/email-replicas", "", "", "env[ADMIN_URLS] names email-0.email-replicas:8081"},
		{"local", "ConfigMap/keyline-", "kafka:9092", "kafkas.keyline:9092", "env[KAFKA_BROKERS] names kafkas.keyline:9092"},
		{"a copy", "ConfigMap/keyline-", "smtp.corp:587", "smtp:587", "env[SMTP_ADDR] names smtp:587"},
		{"production", "PodDisruptionBudget/order", "", "", order + " has no PodDisruptionBudget"},
		{"production", "PodDisruptionBudget/order", "maxUnavailable: 1", "maxUnavailable: 0", "lets 0 of StatefulSet/order go and 3 stay"},
		{"production", "PodDisruptionBudget/order", "maxUnavailable: 1", "maxUnavailable: 100%", "lets 3 of StatefulSet/order go and 0 stay"},
		{"production", "PodDisruptionBudget/order", "io/name: order\n  un", "io/name: orders\n  un", "spec.selector takes no pod"},
		{"production.keda", "ScaledObject/order", "minReplicaCount: 2", "minReplicaCount: 1", "lets 1 of StatefulSet/order go and 0 stay"},
		{"production.keda", "ScaledObject/order", "kind: StatefulSet", "kind: Deployment", "there is no Deployment/order"},
		{"production.keda", order, "spec:", "spec:\n  replicas: 3", "StatefulSet/order spec.replicas: leave it out"},
		{"production.keda", "ScaledObject/order", "authenticationRef:\n      name: kafka", "authenticationRef:\n      name: kafkas", "there is no TriggerAuthentication kafkas"},

		// Flows.
		{"local", "NetworkPolicy/kafka-from-programs", "", "", "order -> kafka:9092 (events, groups, topics) is not let through"},
		{"local", "NetworkPolicy/programs-to-parts", "", "", "console -> registry:8080 (schemas) is not let through"},
		{"local", "NetworkPolicy/names", "", "", "jaeger -> kube-system/k8s-app=kube-dns:53/UDP (names) is not let through"},
		{"local", "NetworkPolicy/default-deny", "", "", "anywhere -> console:any is let through"},
		{"local", "+NetworkPolicy/added", "", lets("ingress: [{from: [{podSelector: {}}], ports: [{port: 25}]}]\n  egress: [{to: [{podSelector: {}}], ports: [{port: 1, endPort: 99}]}]"), "email -> order:25 is let through"},
		{"local", "+NetworkPolicy/added", "", lets("egress: [{}]"), "jaeger -> anywhere:any is let through"},
		{"local", "+NetworkPolicy/added", "", lets("egress: [{to: [{namespaceSelector: {}}], ports: [{port: 5432}]}]"), "order -> */*:5432 is let through"},
		{"production", "NetworkPolicy/order-from-ingress", "    ports:\n    - port: 8080\n", "", "ingress/* -> order:any is let through"},
		{"production", "NetworkPolicy/email-to-smtp", "192.0.2.64/32", "0.0.0.0/0", "email -> 0.0.0.0/0:587 is let through"},
		{"production", "NetworkPolicy/email-to-smtp", "port: 587", "port: 1\n      endPort: 600", "email -> 192.0.2.64/32:any is let through"},
		{"production", "NetworkPolicy/email-to-smtp", "192.0.2.64/32", "192.0.2.65/32", "email -> 192.0.2.65/32:587 is let through"},
		{"a copy", "NetworkPolicy/email-to-smtp", "", "", "email -> outside:587 (the mail server) is not let through"},
		{"a copy", "NetworkPolicy/email-to-smtp", "port: 587", "port: 25", "email -> outside:25 is let through"},
		{"a copy", "NetworkPolicy/email-to-smtp", "name: email\n  policy", "component: service\n  policy", "order -> outside:587 is let through"},
		{"a copy", "NetworkPolicy/email-to-smtp", "2001:db8::25/128", "::/0", "email -> ::/0:587 is let through"},
		{"a copy", "NetworkPolicy/programs-to-parts", "      - provision\n", "", "provision -> outside:9093 (Kafka) is not let through"},
		{"a copy", "NetworkPolicy/order-from-ingress", "        matchLabels:\n          kubernetes.io/metadata.name: gateways", "        {}", "*/* -> order:8080 is let through"},
		{"a copy", "NetworkPolicy/order-from-ingress", "port: 8080", "port: 8081", "a namespace -> order:8081 is let through"},
	} {
		t.Run(tt.overlay+" "+tt.object+" "+tt.want, func(t *testing.T) {
			t.Parallel()
			var broken []manifest
			done := false
			for _, m := range all[tt.overlay] {
				if m.id == tt.object || strings.HasSuffix(tt.object, "-") && strings.HasPrefix(m.id, tt.object) {
					text := strings.Replace(m.text, tt.old, tt.new, 1)
					if done = text != m.text || tt.old+tt.new == ""; tt.old+tt.new == "" {
						continue
					}
					m.text = text
				}
				broken = append(broken, m)
			}
			if id, ok := strings.CutPrefix(tt.object, "+"); ok {
				done, broken = true, append(broken, manifest{id, tt.new})
			}
			got := judge(tt.overlay, known, broken).complaints
			if !done || !strings.Contains(strings.Join(got, "\n"), tt.want) {
				t.Errorf("%s with %q for %q (replaced: %t): want a complaint %q, got:\n%s", tt.object, tt.new, tt.old, done, tt.want, strings.Join(got, "\n"))
			}
		})
	}
}
