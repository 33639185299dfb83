package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside is the name of the link to this machine, as the room sees it.
const inside = "eth0"

// link is the one way into the room: two addresses and the networks that this machine reaches through it.
type link struct {
	name   string   // the end on this machine
	host   string   // its address, with the length of the prefix
	node   string   // the address of the end in the room, likewise
	routes []string // networks behind the node
}

// openCommand makes the room and says the pid of the program that holds it. Killing that one program ends everything
// in it, and takes its mounts, addresses and packet filter away.
func openCommand() *cobra.Command {
	var directory string
	var way link
	command := &cobra.Command{
		Use:          "open",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			pid, err := open(directory, way)
			if err == nil {
				fmt.Println(pid)
			}
			return err
		},
	}
	command.Flags().StringVar(&directory, "dir", "", "directory of the cluster")
	command.Flags().StringVar(&way.name, "link", "", "name of the link on this machine")
	command.Flags().StringVar(&way.host, "host", "", "address of this machine on it, with its prefix")
	command.Flags().StringVar(&way.node, "node", "", "address of the node on it, with its prefix")
	command.Flags().StringSliceVar(&way.routes, "route", nil, "networks behind the node")
	return command
}

func open(directory string, way link) (int, error) {
	log, err := os.OpenFile(filepath.Join(directory, "hold.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	home, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return 0, err
	}
	defer home.Close()
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	holder := exec.Command(program, "hold", "--dir", directory, "--node", way.node)
	holder.Dir = "/"
	holder.Stdout, holder.Stderr = log, log
	holder.ExtraFiles = []*os.File{home} // its descriptor 3
	holder.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	if err := holder.Start(); err != nil {
		return 0, fmt.Errorf("a room of its own was refused: %w", err)
	}
	err = os.WriteFile(filepath.Join(directory, "hold.pid"), []byte(strconv.Itoa(holder.Process.Pid)), 0o600)
	if err == nil {
		err = connect(way, holder.Process.Pid)
	}
	if err != nil {
		_ = holder.Process.Kill()
		_ = holder.Wait()
		return 0, err
	}
	return holder.Process.Pid, nil
}

func connect(way link, pid int) error {
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: way.name},
		PeerName:      inside,
		PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("link %s: %w", way.name, err)
	}
	near, err := netlink.LinkByName(way.name)
	if err != nil {
		return err
	}
	if err := raise(near, way.host); err != nil {
		return err
	}
	gateway, _, err := net.ParseCIDR(way.node)
	if err != nil {
		return err
	}
	for _, text := range way.routes {
		_, network, err := net.ParseCIDR(text)
		if err != nil {
			return err
		}
		// Accepted although the far end is not up yet: the route is on the link by name.
		route := &netlink.Route{LinkIndex: near.Attrs().Index, Dst: network, Gw: gateway}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route to %s: %w", text, err)
		}
	}
	return nil
}

// raise gives a link its address and switches it on.
func raise(one netlink.Link, text string) error {
	address, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(one, address); err != nil {
		return fmt.Errorf("address %s: %w", text, err)
	}
	return netlink.LinkSetUp(one)
}
