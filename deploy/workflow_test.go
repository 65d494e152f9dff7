package deploy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The broker that people's tests run on is the one of .ci/real: the same version, set the same.
func TestWorkflow_kafka(t *testing.T) {
	t.Parallel()
	workflow := read(t, "../.github/workflows/ci.yml")
	version := regexp.MustCompile(`(?m)^kafka_version=(.+)$`).FindStringSubmatch(read(t, "../.ci/rig/kafka.sh"))
	if version == nil || !strings.Contains(workflow, "image: apache/kafka:"+version[1]+"\n") {
		t.Errorf("the workflow's broker is not %q, the version of .ci/rig/kafka.sh", version)
	}
	for line := range strings.Lines(read(t, "../.ci/rig/server.properties")) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		variable := "KAFKA_" + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
		if want := regexp.MustCompile(`(?m)^ +` + variable + `: "?` + regexp.QuoteMeta(value) + `"?$`); !want.MatchString(workflow) {
			t.Errorf("the workflow's broker has no %s: %s", variable, value)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
