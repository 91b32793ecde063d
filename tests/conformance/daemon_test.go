package conformance

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/defaults"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// program names the variable that says which daemon is tested.
const program = "TIDEHOLD"

const (
	readyWithin   = 30 * time.Second
	stoppedWithin = 30 * time.Second
)

// A daemon is a `tidehold serve` with everything that it keeps in one folder, and a connection to it.
type daemon struct {
	command    *exec.Cmd
	exited     chan error
	log        string
	connection *grpc.ClientConn
}

// startDaemon answers when the daemon says that it is ready.
func startDaemon(root string) (*daemon, error) {
	path := os.Getenv(program)
	if path == "" {
		return nil, fmt.Errorf("%s must name the tidehold binary under test", program)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	configuration := filepath.Join(root, "tidehold.toml")
	if err := os.WriteFile(configuration, []byte(configurationIn(root)), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(root, "tidehold.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	notices, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(root, "notify.sock")})
	if err != nil {
		return nil, err
	}
	defer notices.Close()

	command := exec.Command(path, "serve", "--config", configuration)
	command.Env = append(os.Environ(), "NOTIFY_SOCKET="+notices.LocalAddr().String())
	command.Stdout, command.Stderr = log, log
	// A test that is killed takes its daemon along.
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, err
	}
	d := &daemon{command: command, exited: make(chan error, 1), log: log.Name()}
	go func() { d.exited <- command.Wait() }()
	if err := d.awaitReady(notices); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	if d.connection, err = dial(contentSocket(root)); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

func (d *daemon) store() content.Store {
	return proxy.NewContentStore(d.connection)
}

// stop ends the daemon, and it is an error if that takes long or the daemon does not end well.
func (d *daemon) stop() error {
	if d.connection != nil {
		d.connection.Close()
	}
	// It may have ended already: what counts is how.
	_ = d.command.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-d.exited:
		return d.withLog(err)
	case <-time.After(stoppedWithin):
		_ = d.command.Process.Kill()
		<-d.exited
		return d.withLog(fmt.Errorf("the daemon did not end within %v of SIGTERM", stoppedWithin))
	}
}

func (d *daemon) awaitReady(notices *net.UnixConn) error {
	told := make(chan error, 1)
	go func() { told <- awaitNotice(notices, "READY=1") }()
	select {
	case err := <-told:
		return d.withLog(err)
	case err := <-d.exited:
		d.exited <- err
		return d.withLog(fmt.Errorf("the daemon ended before it was ready: %w", err))
	}
}

func awaitNotice(notices *net.UnixConn, awaited string) error {
	if err := notices.SetReadDeadline(time.Now().Add(readyWithin)); err != nil {
		return err
	}
	notice := make([]byte, 4096)
	for {
		n, err := notices.Read(notice)
		if err != nil {
			return fmt.Errorf("no notice %s from the daemon: %w", awaited, err)
		}
		if slices.Contains(strings.Split(string(notice[:n]), "\n"), awaited) {
			return nil
		}
	}
}

func (d *daemon) withLog(err error) error {
	if err == nil {
		return nil
	}
	log, readErr := os.ReadFile(d.log)
	return errors.Join(err, readErr, errors.New("the daemon's log:\n"+string(log)))
}

// dial connects as containerd does to a proxy plugin.
func dial(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
			grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize),
		),
	)
}

func contentSocket(root string) string {
	return filepath.Join(root, "content.sock")
}

// configurationIn keeps everything in the folder; the listeners that the tests don't use get any free port.
func configurationIn(root string) string {
	return fmt.Sprintf(`
data_dir = %q
[[containerd]]
name = "node"
socket = %q
[mirror]
listen = "127.0.0.1:0"
[web]
listen = "127.0.0.1:0"
[control]
socket = %q
`, filepath.Join(root, "data"), contentSocket(root), filepath.Join(root, "control.sock"))
}
