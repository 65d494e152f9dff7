package service

import (
	"fmt"
	"io"
	"reflect"
	"slices"
)

// help answers an argument, which is a question or a mistake: a service is told by variables.
func help[C any](name, arg string, stdout, stderr io.Writer) (status int) {
	switch arg {
	case "-h", "-help", "--help", "help":
	default:
		fmt.Fprintf(stderr, "%s: unknown argument %.40q; it takes none, its settings are variables; next: %[1]s --help\n", name, arg)
		return 2
	}
	fmt.Fprintf(stdout, "%s runs until SIGINT or SIGTERM. Its settings are environment variables; README.md says what each does:\n\n", name)
	var all []variable
	for _, v := range variables(reflect.TypeFor[C](), "") { // of two fields for one variable the outer one, which is the last, decides
		if i := slices.IndexFunc(all, func(other variable) bool { return other.name == v.name }); i >= 0 {
			all[i] = v
			continue
		}
		all = append(all, v)
	}
	for _, v := range all {
		text := v.name
		switch {
		case v.required:
			text += ", required"
		case v.defaultValue != "":
			text += "=" + v.defaultValue
		}
		fmt.Fprintf(stdout, "  %s%s\n", text, v.hint())
	}
	return 0
}
