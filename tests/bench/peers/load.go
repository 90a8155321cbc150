// The load that wrk cannot make: new connections, large bodies, streams of events, idle sockets.
// It ends with an error unless every call succeeded and every byte came; then it prints one line of JSON.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const patience = 30 * time.Second

var (
	kind        = flag.String("kind", "", "cold, download, upload, events or sockets")
	address     = flag.String("address", "", "host:port of the proxy")
	path        = flag.String("path", "/", "what to ask for")
	token       = flag.String("token", "", "sent if given: for the upstream itself")
	seconds     = flag.Float64("seconds", 1, "how long to measure")
	connections = flag.Int("connections", 1, "streams or sockets to hold")
	file        = flag.String("file", "", "the body that is sent, or expected")
	check       = flag.Bool("check", false, "make one call, and compare the body that came")
)

// What is said of a run; latencies in microseconds.
type result struct {
	Calls   int     `json:"calls"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	kinds := map[string]func() (result, error){
		"cold":     func() (result, error) { return repeat(cold) },
		"download": func() (result, error) { return kept(download) },
		"upload":   func() (result, error) { return kept(upload) },
		"events":   events,
		"sockets":  sockets,
	}
	run, known := kinds[*kind]
	if !known {
		log.Fatal("no such kind: " + *kind)
	}
	done, err := run()
	if err != nil {
		log.Fatalf("%s: %v", *kind, err)
	}
	json.NewEncoder(os.Stdout).Encode(done)
	io.Copy(io.Discard, os.Stdin) // connections stay open until whoever measures has seen them
}

func repeat(call func() error) (result, error) {
	var took []time.Duration
	began := time.Now()
	for len(took) == 0 || !*check && time.Since(began).Seconds() < *seconds {
		at := time.Now()
		if err := call(); err != nil {
			return result{}, err
		}
		took = append(took, time.Since(at))
	}
	return summarise(took, time.Since(began)), nil
}

func summarise(took []time.Duration, total time.Duration) result {
	sort.Slice(took, func(a, b int) bool { return took[a] < took[b] })
	at := func(share float64) float64 {
		return float64(took[int(share*float64(len(took)-1))].Nanoseconds()) / 1e3
	}
	return result{len(took), total.Seconds(), at(0.5), at(0.99)}
}

// A connection and what has been read of it too far.
type line struct {
	*net.TCPConn
	from *bufio.Reader
}

func open() (*line, error) {
	connection, err := net.DialTimeout("tcp", *address, patience)
	if err != nil {
		return nil, err
	}
	return &line{connection.(*net.TCPConn), bufio.NewReader(connection)}, nil
}

func (l *line) ask(method string, fields ...string) error {
	if *token != "" {
		fields = append(fields, "Authorization: Bearer "+*token)
	}
	if *check {
		fields = append(fields, "X-Check: 1")
	}
	fields = append([]string{method + " " + *path + " HTTP/1.1", "Host: " + *address}, fields...)
	_, err := io.WriteString(l, strings.Join(fields, "\r\n")+"\r\n\r\n")
	return err
}

func (l *line) answer(expected int) (*http.Response, error) {
	response, err := http.ReadResponse(l.from, nil)
	if err == nil && response.StatusCode != expected {
		err = errors.New("the answer is " + response.Status)
	}
	return response, err
}

func cold() error {
	l, err := open()
	if err != nil {
		return err
	}
	defer l.Close()
	l.SetDeadline(time.Now().Add(patience))
	if err := l.ask("GET"); err != nil {
		return err
	}
	response, err := l.answer(200)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err == nil && len(body) == 0 {
		err = errors.New("an empty body")
	}
	return err
}

// Calls one after another on one connection.
func kept(call func(*line) error) (result, error) {
	l, err := open()
	if err != nil {
		return result{}, err
	}
	return repeat(func() error {
		l.SetDeadline(time.Now().Add(patience))
		return call(l)
	})
}

func download(l *line) error {
	if err := l.ask("GET"); err != nil {
		return err
	}
	response, err := l.answer(200)
	if err != nil {
		return err
	}
	body, err := os.Open(*file)
	if err != nil {
		return err
	}
	defer body.Close()
	if *check {
		return compare(response.Body, body)
	}
	about, err := body.Stat()
	if err != nil {
		return err
	}
	count, err := l.drop(response)
	if err == nil && count != about.Size() {
		err = fmt.Errorf("%d bytes came of %d", count, about.Size())
	}
	return err
}

// Takes a body off the connection as cheaply as the system can, so that the load is not what limits:
// its bytes are counted by the kernel and not copied.
func (l *line) drop(response *http.Response) (int64, error) {
	if response.ContentLength < 0 {
		return io.Copy(io.Discard, response.Body)
	}
	count := int64(l.from.Buffered())
	l.from.Discard(l.from.Buffered())
	raw, err := l.SyscallConn()
	if err != nil {
		return count, err
	}
	room := make([]byte, 1<<20)
	for count < response.ContentLength {
		got := 0
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			most := response.ContentLength - count
			if most > int64(len(room)) {
				most = int64(len(room))
			}
			got, _, failed = syscall.Recvfrom(int(fd), room[:most], syscall.MSG_TRUNC)
			return failed != syscall.EAGAIN
		})
		if err = first(err, failed); err != nil {
			return count, err
		}
		if got == 0 {
			return count, io.ErrUnexpectedEOF
		}
		count += int64(got)
	}
	return count, nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func compare(came, expected io.Reader) error {
	sums := [2][]byte{}
	for place, from := range []io.Reader{came, expected} {
		sum := sha256.New()
		if _, err := io.Copy(sum, from); err != nil {
			return err
		}
		sums[place] = sum.Sum(nil)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return errors.New("another body came")
	}
	return nil
}

func upload(l *line) error {
	body, err := os.Open(*file)
	if err != nil {
		return err
	}
	defer body.Close()
	about, err := body.Stat()
	if err != nil {
		return err
	}
	if err := l.ask("POST", fmt.Sprintf("Content-Length: %d", about.Size())); err != nil {
		return err
	}
	if _, err := l.ReadFrom(body); err != nil { // sendfile: nothing is copied here
		return err
	}
	response, err := l.answer(200)
	if err != nil {
		return err
	}
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	expected := fmt.Sprint(about.Size())
	if *check {
		sum := sha256.New()
		body.Seek(0, io.SeekStart)
		io.Copy(sum, body)
		expected += fmt.Sprintf(" %x", sum.Sum(nil))
	}
	if string(said) != expected {
		return fmt.Errorf("the upstream got %q, not %q", said, expected)
	}
	return nil
}

const (
	waiting = iota
	measuring
	over
)

// Each stream is read by a routine of its own; what it times counts while measuring.
func events() (result, error) {
	var phase atomic.Int32
	var begun, ended sync.WaitGroup
	failures := make(chan error, *connections)
	times := make([][]time.Duration, *connections)
	stop := time.Now().Add(patience + time.Duration(*seconds*float64(time.Second)))
	for place := range times {
		l, err := open()
		if err != nil {
			return result{}, err
		}
		l.SetDeadline(stop)
		if err := l.ask("GET", "Accept: text/event-stream"); err != nil {
			return result{}, err
		}
		held = append(held, l)
		begun.Add(1)
		ended.Add(1)
		go func(place int) {
			defer ended.Done()
			if err := l.follow(&times[place], &phase, begun.Done); err != nil {
				failures <- fmt.Errorf("stream %d: %w", place, err)
			}
		}(place)
	}
	ready := make(chan struct{})
	go func() { begun.Wait(); close(ready) }()
	select {
	case <-ready:
	case err := <-failures:
		return result{}, err
	}
	began := time.Now()
	phase.Store(measuring)
	select {
	case <-time.After(time.Duration(*seconds * float64(time.Second))):
	case err := <-failures:
		return result{}, err
	}
	phase.Store(over)
	total := time.Since(began)
	ended.Wait()
	var took []time.Duration
	for place, own := range times {
		if len(own) < int(*seconds)-1 { // one may have come just before, and the next just after
			return result{}, fmt.Errorf("stream %d had %d events in %g s", place, len(own), *seconds)
		}
		took = append(took, own...)
	}
	if len(took) == 0 {
		return result{}, errors.New("no event came")
	}
	return summarise(took, total), nil
}

// Follows a stream until measuring is over. No event may be missing.
// Some proxies give the head together with the first event, so nobody waits for it before the next stream is opened.
func (l *line) follow(times *[]time.Duration, phase *atomic.Int32, begun func()) error {
	response, err := l.answer(200)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(response.Body)
	for expected := 0; lines.Scan(); {
		if lines.Text() == "" {
			continue
		}
		now := time.Now().UnixNano()
		var number int
		var sent int64
		if _, err := fmt.Sscanf(lines.Text(), "data: %d %d", &number, &sent); err != nil || number != expected {
			return fmt.Errorf("event %d is %q", expected, lines.Text())
		}
		if expected++; expected == 1 {
			begun()
		}
		switch phase.Load() {
		case measuring:
			*times = append(*times, time.Duration(now-sent))
		case over:
			return nil
		}
	}
	return first(lines.Err(), io.ErrUnexpectedEOF)
}

// Each socket says something once and hears it; then all are idle.
func sockets() (result, error) {
	began := time.Now()
	var took []time.Duration
	for place := 0; place < *connections; place++ {
		at := time.Now()
		l, err := open()
		if err == nil {
			l.SetDeadline(time.Now().Add(patience))
			err = l.greet()
		}
		if err != nil {
			return result{}, fmt.Errorf("socket %d: %w", place, err)
		}
		held = append(held, l)
		took = append(took, time.Since(at))
	}
	time.Sleep(time.Duration(*seconds * float64(time.Second)))
	return summarise(took, time.Since(began)), nil
}

var held []*line // for as long as this program runs

func (l *line) greet() error {
	err := l.ask("GET", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
	if err != nil {
		return err
	}
	response, err := l.answer(101)
	if err != nil {
		return err
	}
	// The key and its answer are the example of RFC 6455 section 1.3.
	if response.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return errors.New("the handshake is not this one's")
	}
	if _, err := l.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}); err != nil {
		return err
	}
	said := make([]byte, 4)
	if _, err := io.ReadFull(l.from, said); err != nil || !bytes.Equal(said, []byte{0x81, 2, 'h', 'i'}) {
		return fmt.Errorf("a greeting came back as %x: %v", said, err)
	}
	return nil
}
