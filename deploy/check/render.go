package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// manifest is one rendered object.
type manifest struct {
	id   string // Kind/name
	text string // YAML
}

// render returns what each overlay renders to, by name. Production comes with each of the opt-in
// components too, and with all of them, as if their lines in its kustomization.yaml were no comments.
func render(deploy string) (map[string][]manifest, error) {
	source, files := os.DirFS(deploy), filesys.MakeFsInMemory()
	variants, err := variants(source)
	for _, root := range []string{"base", "components", "overlays"} {
		err = errors.Join(err, fs.WalkDir(source, root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(source, name)
			if file, ok := strings.CutPrefix(name, "overlays/production/"); ok {
				for variant, components := range variants {
					err = errors.Join(err, files.WriteFile("overlays/"+variant+"/"+file, []byte(components.Replace(string(text)))))
				}
			}
			return errors.Join(err, files.WriteFile(name, text))
		}))
	}
	overlays := map[string][]manifest{}
	names, _ := files.ReadDir("overlays")
	for _, name := range names {
		all, wrong := build(files, "overlays/"+name)
		overlays[name], err = all, errors.Join(err, wrong)
	}
	return overlays, err
}

// variants has what makes each of them of production, such as production.keda.
func variants(deploy fs.FS) (map[string]*strings.Replacer, error) {
	text, err := fs.ReadFile(deploy, "overlays/production/kustomization.yaml")
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(deploy, "components")
	name, lines, all := "production", []string{}, map[string]*strings.Replacer{}
	for _, e := range entries {
		line := "- ../../components/" + e.Name() + "\n"
		if !strings.Contains(string(text), line) {
			return nil, fmt.Errorf("overlays/production/kustomization.yaml has no line %q: write it, as a comment unless it is wanted by everybody", "  # "+line)
		}
		name, lines = name+"."+e.Name(), append(lines, "# "+line, line)
		all["production."+e.Name()] = strings.NewReplacer("# "+line, line)
		all[name] = strings.NewReplacer(lines...)
	}
	return all, err
}

func build(files filesys.FileSystem, folder string) (all []manifest, err error) {
	// A duplicate key ends here, too.
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, folder)
	if err != nil {
		return nil, fmt.Errorf("deploy/%s does not render: %w", folder, err)
	}
	for _, o := range objects.Resources() {
		text, err := o.AsYAML()
		if err != nil {
			return nil, err
		}
		all = append(all, manifest{o.GetKind() + "/" + o.GetName(), string(text)})
	}
	return all, nil
}
