// The shortest TCP relay in Go: io.Copy each way, which splices where it can.
// go_proxy LISTEN TARGET
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func carry(to, from *net.TCPConn, done chan<- bool) {
	io.Copy(to, from)
	to.CloseWrite()
	done <- true
}

func serve(client *net.TCPConn, target string) {
	defer client.Close()
	c, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	done := make(chan bool, 2)
	go carry(server, client, done)
	go carry(client, server, done)
	<-done
	<-done
}

func main() {
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err == nil {
			go serve(c.(*net.TCPConn), os.Args[2])
		}
	}
}
