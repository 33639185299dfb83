package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Directories that belong to others on this machine, and that components use by names which cannot be changed.
var private = []string{"/run", "/var/lib", "/var/log"}

// What the kubelet wants of the kernel. It sees these values, and the machine keeps its own.
var kernel = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// holdCommand is the first program of the room: it sets the room up, starts the others as it is told over a socket,
// and takes in those whose parent has ended.
func holdCommand() *cobra.Command {
	var directory, node string
	command := &cobra.Command{
		Use:          "hold",
		Args:         cobra.NoArgs,
		Hidden:       true,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			if os.Getpid() != 1 {
				return fmt.Errorf("this is started by `node open` only")
			}
			if err := mountAll(); err != nil {
				return err
			}
			if err := network(node); err != nil {
				return err
			}
			return newPrograms(os.NewFile(3, "network of the machine")).serve(filepath.Join(directory, "control.sock"))
		},
	}
	command.Flags().StringVar(&directory, "dir", "", "directory of the cluster")
	command.Flags().StringVar(&node, "node", "", "address of the node, with its prefix")
	return command
}

// mountAll takes this room's mounts apart from the machine's. Within the room they are shared, as volumes need it.
func mountAll() error {
	for _, kind := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", kind|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("propagation of mounts: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, path := range private {
		if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", path, err)
		}
	}
	return coverKernel()
}

func coverKernel() error {
	if err := os.Mkdir("/run/kernel", 0o755); err != nil {
		return err
	}
	for name, value := range kernel {
		cover := filepath.Join("/run/kernel", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(cover, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(cover, filepath.Join("/proc/sys", name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", name, err)
		}
	}
	return nil
}

// network waits for the link and switches everything on. There is no way out of the room: no route leads further.
func network(node string) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	end := time.Now().Add(10 * time.Second)
	for {
		near, err := netlink.LinkByName(inside)
		if err == nil {
			if err := raise(near, node); err != nil {
				return err
			}
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("link %s did not appear: %w", inside, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}
