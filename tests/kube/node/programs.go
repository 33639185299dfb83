package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// request is one line of JSON on the control socket.
type request struct {
	Do       string   `json:"do"` // start, signal, end, forward or list
	Name     string   `json:"name"`
	Argv     []string `json:"argv"`
	Log      string   `json:"log"`
	Signal   int      `json:"signal"`
	Address  string   `json:"address"`
	Patience float64  `json:"patience"` // seconds between SIGTERM and SIGKILL; 0 is no SIGTERM at all
}

type reply struct {
	Error    string            `json:"error"`
	Programs map[string]string `json:"programs"` // name to "runs", "paused" or "ended: …"
}

type program struct {
	process *os.Process
	paused  bool
	status  unix.WaitStatus
	ended   chan struct{}
}

func (p *program) state() string {
	select {
	case <-p.ended:
		if p.status.Signaled() {
			return "ended: " + p.status.Signal().String()
		}
		return fmt.Sprintf("ended: code %d", p.status.ExitStatus())
	default:
	}
	if p.paused {
		return "paused"
	}
	return "runs"
}

type programs struct {
	lock     sync.Mutex
	known    map[string]*program
	machine  *os.File // the network namespace of the machine
	forwards map[string]bool
}

func newPrograms(machine *os.File) *programs {
	return &programs{known: map[string]*program{}, machine: machine, forwards: map[string]bool{}}
}

// serve answers on the socket until the room is killed.
func (p *programs) serve(path string) error {
	syscall.CloseOnExec(int(p.machine.Fd()))
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		for range children {
			p.reap()
		}
	}()
	syscall.Umask(0o077)
	listener, err := net.Listen("unix", path)
	syscall.Umask(0o022)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go p.answer(connection)
	}
}

// reap notes what ended: programs of ours, and orphans, which are of no interest.
func (p *programs) reap() {
	p.lock.Lock()
	defer p.lock.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		for _, one := range p.known {
			if one.process.Pid == pid {
				one.status = status
				close(one.ended)
			}
		}
	}
}

func (p *programs) answer(connection net.Conn) {
	defer connection.Close()
	var asked request
	answer := reply{}
	line, err := bufio.NewReader(connection).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &asked)
	}
	if err == nil {
		err = p.do(asked)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	answer.Programs = p.list()
	_ = json.NewEncoder(connection).Encode(answer)
}

func (p *programs) do(asked request) error {
	switch asked.Do {
	case "list":
		return nil
	case "start":
		return p.start(asked)
	case "signal":
		return p.signal(asked.Name, syscall.Signal(asked.Signal))
	case "end":
		return p.end(asked.Name, time.Duration(asked.Patience*float64(time.Second)))
	case "forward":
		return p.forward(asked.Address)
	}
	return fmt.Errorf("unknown request %q", asked.Do)
}

func (p *programs) list() map[string]string {
	p.lock.Lock()
	defer p.lock.Unlock()
	found := map[string]string{}
	for name, one := range p.known {
		found[name] = one.state()
	}
	return found
}

// running is the program of that name, if it runs. The lock must be held.
func (p *programs) running(name string) *program {
	one := p.known[name]
	if one == nil {
		return nil
	}
	select {
	case <-one.ended:
		return nil
	default:
		return one
	}
}

// start does nothing when a program of that name runs already.
func (p *programs) start(asked request) error {
	p.lock.Lock() // what ends at once is reaped after it is known
	defer p.lock.Unlock()
	if p.running(asked.Name) != nil {
		return nil
	}
	log, err := os.OpenFile(asked.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer nothing.Close()
	process, err := os.StartProcess(asked.Argv[0], asked.Argv, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin", "HOME=/run"},
		Files: []*os.File{nothing, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	p.known[asked.Name] = &program{process: process, ended: make(chan struct{})}
	return nil
}

func (p *programs) signal(name string, number syscall.Signal) error {
	p.lock.Lock()
	defer p.lock.Unlock()
	one := p.running(name)
	if one == nil {
		return fmt.Errorf("%s does not run", name)
	}
	if err := unix.Kill(one.process.Pid, number); err != nil {
		return err
	}
	switch number {
	case syscall.SIGSTOP:
		one.paused = true
	case syscall.SIGCONT:
		one.paused = false
	}
	return nil
}

// end waits until the program is gone; one that does not run is gone already.
func (p *programs) end(name string, patience time.Duration) error {
	p.lock.Lock()
	one := p.running(name)
	p.lock.Unlock()
	if one == nil {
		return nil
	}
	if patience > 0 {
		_ = p.signal(name, syscall.SIGCONT)
		_ = p.signal(name, syscall.SIGTERM)
		select {
		case <-one.ended:
			return nil
		case <-time.After(patience):
		}
	}
	_ = p.signal(name, syscall.SIGKILL)
	<-one.ended
	return nil
}
