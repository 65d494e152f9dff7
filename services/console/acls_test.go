package console_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/services/console"
)

func TestACLs(t *testing.T) {
	t.Parallel()
	// shell runs what was printed, and returns the arguments of each command.
	shell := func(t *testing.T, script string, vars ...string) (commands []string, err error) {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "kafka-acls.sh"), []byte("#!/bin/sh\nprintf '[%s]' \"$@\"; echo\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh")
		cmd.Stdin, cmd.Env = strings.NewReader(script), append(vars, "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.Output()
		return strings.Split(strings.TrimSpace(string(out)), "\n"), err
	}

	t.Run("what kafka-acls.sh is called with", func(t *testing.T) {
		t.Parallel()
		a := run(t, nil, "acls", "--format", "kafka-acls", "--principal", "User:CN=NAME,O=A Shop")
		a.want(t, 0, "no answer from email, inventory, order")
		commands, err := shell(t, a.out, "BOOTSTRAP=kafka:9092")
		if err != nil || len(commands) != 9 {
			t.Fatalf("%d commands, %v:\n%s", len(commands), err, a.out)
		}
		begin := "[--bootstrap-server][kafka:9092][--command-config][admin.properties][--add][--allow-principal][User:CN=order,O=A Shop]"
		of := slices.DeleteFunc(commands, func(c string) bool { return !strings.HasPrefix(c, begin) })
		want := []string{
			begin + "[--operation][Write][--topic][orders][--topic][inventory.order.dlt]",
			begin + "[--operation][Read][--topic][inventory][--group][order]",
		}
		if diff := cmp.Diff(want, of); diff != "" {
			t.Errorf("of the order service (-want +got):\n%s", diff)
		}
		if _, err := shell(t, a.out); err == nil {
			t.Error("without BOOTSTRAP it goes on")
		}
	})

	t.Run("groups are those of the services that answer", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{"GET /admin/partitions": `{"group": "shop2 email", "items": []}`})
		environ := admin(map[string]*stand{"email": s})
		run(t, environ, "acls").want(t, 0, "orders.shop2 email.dlt", "no answer from inventory, order:", "console acls --format kafka-acls\n")
		run(t, environ, "acls", "--format", "kafka-acls").want(t, 0, "--group 'shop2 email'")
		var told struct{ Items []console.Permission }
		if err := json.Unmarshal([]byte(run(t, environ, "acls", "--json").out), &told); err != nil {
			t.Fatal(err)
		}
		var groups []string
		for _, p := range told.Items {
			if p.Resource == "group" {
				groups = append(groups, p.Principal+" "+p.Name)
			}
		}
		want := []string{
			"User:email shop2 email", "User:inventory inventory", "User:order order",
			"User:console shop2 email", "User:console inventory", "User:console order",
		}
		if diff := cmp.Diff(want, groups); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}
	})
}
