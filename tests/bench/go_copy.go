// The classic measurement of zero-copy in Go: 1 MB from one TCP connection to another.
// A line of JSON for each way: nanoseconds, and bytes and objects allocated, per copy.
//
//	go_copy            by io.CopyN with splice, and with the splice hidden from it
//	go_copy relay      prints where it listens, reads a relay's address from stdin, and
//	                   sends each megabyte through that relay
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

const size = 1000000

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func listen() *net.TCPListener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fail(err)
	return l.(*net.TCPListener)
}

func dial(address string) *net.TCPConn {
	c, err := net.Dial("tcp", address)
	fail(err)
	return c.(*net.TCPConn)
}

func accept(l *net.TCPListener) *net.TCPConn {
	c, err := l.AcceptTCP()
	fail(err)
	return c
}

// ends writes a megabyte into `in` for each start, and says so when it has come out of `out`.
func ends(in, out *net.TCPConn) (start, done chan bool) {
	start, done = make(chan bool, 1), make(chan bool, 1)
	chunk, sink := make([]byte, size), make([]byte, 256<<10)
	go func() {
		for range start {
			if _, err := in.Write(chunk); err != nil {
				return
			}
		}
	}()
	go func() {
		for {
			for left := size; left > 0; {
				n, err := out.Read(sink[:min(left, len(sink))])
				if err != nil {
					return
				}
				left -= n
			}
			done <- true
		}
	}()
	return start, done
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func report(name string, r testing.BenchmarkResult) {
	fmt.Printf("{\"name\": %q, \"ns\": %d, \"bytes\": %d, \"objects\": %d, \"copies\": %d}\n", name,
		r.NsPerOp(), r.AllocedBytesPerOp(), r.AllocsPerOp(), r.N)
}

func ours(b *testing.B, in, out *net.TCPConn) {
	start, done := ends(in, out)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		start <- true
		<-done
	}
	b.StopTimer()
	close(start)
	in.Close()
	out.Close()
}

func gos(b *testing.B, splice bool) {
	l := listen()
	in := dial(l.Addr().String())
	from := accept(l)
	to := dial(l.Addr().String())
	out := accept(l)
	start, done := ends(in, out)
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		start <- true
		var err error
		if splice {
			_, err = io.CopyN(to, from, size)
		} else {
			_, err = io.CopyN(struct{ io.Writer }{to}, struct{ io.Reader }{from}, size)
		}
		fail(err)
		<-done
	}
	b.StopTimer()
	close(start)
	for _, c := range []*net.TCPConn{in, from, to, out} {
		c.Close()
	}
	l.Close()
}

func main() {
	if len(os.Args) < 2 {
		report("splice", testing.Benchmark(func(b *testing.B) { gos(b, true) }))
		report("copy", testing.Benchmark(func(b *testing.B) { gos(b, false) }))
		return
	}
	l := listen()
	fmt.Println(l.Addr().String())
	relay, err := bufio.NewReader(os.Stdin).ReadString('\n')
	fail(err)
	report("relay", testing.Benchmark(func(b *testing.B) {
		in := dial(strings.TrimSpace(relay))
		ours(b, in, accept(l))
	}))
}
