// The upstream of what lasts: events, sockets and large uploads. A call without the token gets 401.
package main

import (
	"bufio"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const interval = time.Second
const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455 section 1.3

var streams int64
var padding = strings.Repeat("x", 160)

func main() {
	listen, token := os.Args[1], os.Args[2]
	routes := map[string]http.HandlerFunc{"/events": events, "/socket": socket, "/upload": upload, "/": hello}
	log.Fatal(http.ListenAndServe(listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, known := routes[r.URL.Path]
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			http.Error(w, "no token", http.StatusUnauthorized)
		case !known:
			http.NotFound(w, r)
		default:
			route(w, r)
		}
	})))
}

func hello(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"ok": true}`)
}

// One event an interval with its number and the instant it was sent at. The streams take turns evenly,
// so that what is timed is an event's way and not a queue of a thousand.
func events(w http.ResponseWriter, r *http.Request) {
	turn := time.Duration(atomic.AddInt64(&streams, 1)%1000) * interval / 1000
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	next := time.Now().Truncate(interval).Add(interval + turn)
	for number := 0; ; number++ {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Until(next)):
		}
		next = next.Add(interval)
		if _, err := fmt.Fprintf(w, "data: %d %d %s\n\n", number, time.Now().UnixNano(), padding); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
}

// Says how much came. With X-Check it says what came, too, which takes longer than to receive it.
func upload(w http.ResponseWriter, r *http.Request) {
	var sum hash.Hash
	var to io.Writer = discard{}
	if r.Header.Get("X-Check") != "" {
		sum = sha256.New()
		to = sum
	}
	count, err := io.CopyBuffer(to, r.Body, make([]byte, 1<<18))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if sum == nil {
		fmt.Fprintf(w, "%d", count)
	} else {
		fmt.Fprintf(w, "%d %x", count, sum.Sum(nil))
	}
}

// io.Discard would bring a buffer of its own that is smaller.
type discard struct{}

func (discard) Write(data []byte) (int, error) { return len(data), nil }

// A WebSocket that says short messages back, and nothing else (RFC 6455 section 5.2).
func socket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if key == "" || !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "no handshake", http.StatusBadRequest)
		return
	}
	accept := sha1.Sum([]byte(key + guid))
	connection, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	fmt.Fprintf(connection, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(accept[:]))
	for {
		message, err := readShort(buffered.Reader)
		if err != nil {
			return
		}
		connection.Write(append([]byte{0x81, byte(len(message))}, message...))
	}
}

func readShort(from *bufio.Reader) ([]byte, error) {
	head := make([]byte, 6)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	if head[0] != 0x81 || head[1] < 0x80 || head[1] > 0x80+125 {
		return nil, fmt.Errorf("not a short masked text: %x", head)
	}
	message := make([]byte, head[1]-0x80)
	_, err := io.ReadFull(from, message)
	for place := range message {
		message[place] ^= head[2+place%4]
	}
	return message, err
}
