// Checks what is in deploy/ with the programs' own readers: Kubernetes' types, kustomize, BuildKit's parser of image
// files. What is right is printed as JSON, for the tests to look at; what is wrong ends it with 1 and in words.
//
//	check kubernetes FOLDER     the objects that kustomize makes of it
//	check containerfile FILE    its stages, and what BuildKit's linter objects to
//	check yaml FILE             what stands in it
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: check kubernetes|containerfile|yaml PATH"))
	}
	checks := map[string]func(string) (any, error){
		"kubernetes":    kubernetes,
		"containerfile": containerfile,
		"yaml":          plain,
	}
	check, known := checks[os.Args[1]]
	if !known {
		fail(fmt.Errorf("unknown check %q", os.Args[1]))
	}
	found, err := check(os.Args[2])
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fail(err)
	}
}

func plain(path string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var found any
	// Strictly: a key that is there twice is a mistake.
	err = yaml.UnmarshalStrict(text, &found)
	return found, err
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
