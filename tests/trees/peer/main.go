// The peer applies layers with containerd's own applier, so that what Tidehold makes of them can be compared with it.
//
// It reads jobs from its standard input, one JSON object a line, and answers each with a line: of every layer what
// was applied, until one fails.
package main

import (
	"bufio"
	"context"
	_ "crypto/sha256" // for the digests of what is applied
	"encoding/json"
	"log"
	"os"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins/content/local"
	containerdlog "github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A job is a stack of layers, the lowest first.
type job struct {
	Layers []layer `json:"layers"`
}

type layer struct {
	Blob       string             `json:"blob"`
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Mounts     []mount.Mount      `json:"mounts"`
}

// An outcome is an error, or the uncompressed layer.
type outcome struct {
	Error     string `json:"error,omitempty"`
	Digest    string `json:"digest,omitempty"`
	Size      int64  `json:"size"`
	MediaType string `json:"media_type,omitempty"`
}

// One file stands for the whole content store.
type file string

func (f file) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return local.OpenReader(string(f))
}

func main() {
	// What systemd gives containerd, whatever the shell that the tests are run from has.
	syscall.Umask(0o022)
	if err := containerdlog.SetLevel("error"); err != nil {
		log.Fatal(err)
	}
	answers := json.NewEncoder(os.Stdout)
	jobs := json.NewDecoder(bufio.NewReader(os.Stdin))
	for jobs.More() {
		var next job
		if err := jobs.Decode(&next); err != nil {
			log.Fatal(err)
		}
		if err := answers.Encode(run(next.Layers)); err != nil {
			log.Fatal(err)
		}
	}
}

func run(layers []layer) []outcome {
	var outcomes []outcome
	for _, layer := range layers {
		applier := apply.NewFileSystemApplier(file(layer.Blob))
		applied, err := applier.Apply(context.Background(), layer.Descriptor, layer.Mounts)
		if err != nil {
			return append(outcomes, outcome{Error: err.Error()})
		}
		outcomes = append(outcomes, outcome{
			Digest:    applied.Digest.String(),
			Size:      applied.Size,
			MediaType: applied.MediaType,
		})
	}
	return outcomes
}
