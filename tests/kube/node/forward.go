package main

import (
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// forward makes an address on the machine's loopback reachable under the same address within the room. Asking twice
// is asking once.
func (p *programs) forward(address string) error {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.forwards[address] {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	p.forwards[address] = true
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(near, address)
		}
	}()
	return nil
}

func (p *programs) pass(near net.Conn, address string) {
	defer near.Close()
	far, err := dialFrom(p.machine, address)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		_, _ = io.Copy(far, near)
		_ = far.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(near, far)
}

// dialFrom connects from within another network namespace. A socket belongs to the namespace in which it was made, so
// the thread comes back as soon as it is there; one that cannot come back is given up.
func dialFrom(namespace *os.File, address string) (net.Conn, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer own.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	connection, err := net.Dial("tcp", address)
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread()
	}
	return connection, err
}
