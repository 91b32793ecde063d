package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// kubernetes makes the objects of a kustomization and reads each into its type: an API server would refuse, or worse
// drop in silence, a field that the type has not got.
func kubernetes(folder string) (any, error) {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, err
	}
	types := scheme.Scheme
	reader := json.NewSerializerWithOptions(json.DefaultMetaFactory, types, types, json.SerializerOptions{Yaml: true, Strict: true})
	var objects []runtime.Object
	for _, resource := range made.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			return nil, err
		}
		object, kind, err := reader.Decode(text, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", resource.CurId(), err)
		}
		if preferred := types.PrioritizedVersionsForGroup(kind.Group); len(preferred) == 0 || preferred[0] != kind.GroupVersion() {
			return nil, fmt.Errorf("%s: %s is not the group's first version", resource.CurId(), kind)
		}
		objects = append(objects, object)
	}
	return objects, nil
}
