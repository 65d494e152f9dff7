package deploy_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// maxBytes bounds each program as it was measured, and a little more. An image adds 0.85 MB, and
// stays below 25 MB; the shop in one process, which make run builds, below 40 MB.
var maxBytes = map[string]int64{
	"order": 24_000_000, "inventory": 24_000_000, "email": 24_000_000, "console": 17_500_000,
	"all": 38_500_000,
}

// howToLook is for the one who finds that a program has grown: %[1]s has, built with the
// tags %[2]s.
const howToLook = `%[1]s: next, find what is new and what it weighs:
  go list -tags %[2]s -deps ./services/%[1]s/cmd/%[1]s
  go build -tags %[2]s -o /tmp/%[1]s ./services/%[1]s/cmd/%[1]s && go tool nm -size -sort size /tmp/%[1]s | head -50
If this prints anything, methods are called by name, as by text/template, and the linker drops none:
  go build -tags %[2]s -o /tmp/%[1]s -ldflags=-dumpdep ./services/%[1]s/cmd/%[1]s 2>&1 | grep ReflectMethod`

// The programs of the images, built as make images builds them, and the shop, as make run builds it
// but stripped.
func TestPrograms_areSmall(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it links five programs")
	}
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("the Makefile needs a shell too")
	}
	watchSources(t)
	makefile := read(t, "../Makefile")
	variable := func(name string) string {
		found := regexp.MustCompile(`(?m)^` + name + ` = (.+)$`).FindStringSubmatch(makefile)
		if found == nil {
			t.Fatalf("the Makefile has no line that begins with %s =", name)
		}
		return found[1]
	}
	image := strings.ReplaceAll(variable("IMAGE_BUILD"), "$(IMAGE_TAGS)", variable("IMAGE_TAGS"))
	checkSizes(t, image, strings.Fields(variable("PROGRAMS")))
	checkSizes(t, variable("RUN_BUILD")+` -trimpath -ldflags="-s -w"`, []string{"all"})
}

// checkSizes builds programs by a command line.
func checkSizes(t *testing.T, build string, programs []string) {
	t.Helper()
	tags := regexp.MustCompile(`-tags (\S+)`).FindStringSubmatch(build)
	if tags == nil {
		t.Fatalf("%s: it has no -tags", build)
	}
	build += ` -o "$OUT"`
	for _, p := range programs {
		build += " ./services/" + p + "/cmd/" + p
	}
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", build)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "OUT="+dir+"/")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	for _, p := range programs {
		info, err := os.Stat(filepath.Join(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has %.2f MB", p, float64(info.Size())/1e6)
		if info.Size() > maxBytes[p] {
			t.Errorf("%s has %d bytes, more than %d\n%s", p, info.Size(), maxBytes[p], fmt.Sprintf(howToLook, p, tags[1]))
		}
	}
}

// watchSources looks at the programs' folders: go test keeps a result until what the test
// itself has looked at changes, and knows nothing of what its commands read.
func watchSources(t *testing.T) {
	t.Helper()
	for _, root := range []string{"../go.mod", "../pkg", "../schemas", "../services"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
