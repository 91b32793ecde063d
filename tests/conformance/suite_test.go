// Package conformance runs containerd's own tests of a content store against the Tidehold daemon, over its real
// socket and through the client that containerd's proxy plugins use: on the store alone, and on the store under
// containerd's metadata store, as in a running containerd.
//
// `cargo test --test conformance` builds the daemon and this and runs them. By hand, and at another release:
//
//	go get github.com/containerd/containerd/v2@v2.3.7 && go mod tidy
//	TIDEHOLD=../../target/debug/tidehold go test -v .
package conformance

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	bolt "go.etcd.io/bbolt"
)

func TestBare(t *testing.T) {
	testsuite.ContentSuite(t, "bare", bare)
}

func TestUnderMetadataShared(t *testing.T) {
	testsuite.ContentSuite(t, "shared", underMetadata())
}

func TestUnderMetadataIsolated(t *testing.T) {
	testsuite.ContentSuite(t, "isolated", underMetadata(metadata.WithPolicyIsolated))
}

func TestAcrossNamespacesShared(t *testing.T) {
	testsuite.ContentCrossNSSharedSuite(t, "across-shared", underMetadata())
}

func TestAcrossNamespacesIsolated(t *testing.T) {
	testsuite.ContentCrossNSIsolatedSuite(t, "across-isolated", underMetadata(metadata.WithPolicyIsolated))
}

func TestSharedNamespaceUnderIsolated(t *testing.T) {
	testsuite.ContentSharedNSIsolatedSuite(t, "label-shared", underMetadata(metadata.WithPolicyIsolated))
}

// bare gives a test a daemon of its own, and nothing between them.
func bare(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
	daemon, err := startDaemon(root)
	if err != nil {
		return nil, nil, nil, err
	}
	return ctx, daemon.store(), daemon.stop, nil
}

// underMetadata gives a test a daemon of its own under a metadata store of its own.
func underMetadata(options ...metadata.DBOpt) testsuite.StoreInitFn {
	return func(ctx context.Context, root string) (context.Context, content.Store, func() error, error) {
		daemon, err := startDaemon(root)
		if err != nil {
			return nil, nil, nil, err
		}
		file, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, nil)
		if err != nil {
			return nil, nil, nil, errors.Join(err, daemon.stop())
		}
		database := metadata.NewDB(file, daemon.store(), nil, options...)
		stop := func() error { return errors.Join(file.Close(), daemon.stop()) }
		if err := database.Init(ctx); err != nil {
			return nil, nil, nil, errors.Join(err, stop())
		}
		return testsuite.SetContextWrapper(ctx, ownNamespaces(file)), database.ContentStore(), stop, nil
	}
}

// ownNamespaces puts every context that a test asks for into a namespace of its own.
func ownNamespaces(file *bolt.DB) testsuite.ContextWrapper {
	var count atomic.Uint32
	return func(ctx context.Context, shared bool) (context.Context, func(context.Context) error, error) {
		namespace := fmt.Sprintf("namespace-%d", count.Add(1))
		ctx = namespaces.WithNamespace(ctx, namespace)
		if shared {
			if err := file.Update(func(tx *bolt.Tx) error {
				return metadata.NewNamespaceStore(tx).SetLabel(ctx, namespace, labels.LabelSharedNamespace, "true")
			}); err != nil {
				return nil, nil, err
			}
		}
		return ctx, func(context.Context) error { return nil }, nil
	}
}
