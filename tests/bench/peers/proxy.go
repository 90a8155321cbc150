// The standard library's reverse proxy, set up as its documentation has it, with the token added.
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

func main() {
	listen, upstream, token := os.Args[1], os.Args[2], os.Args[3]
	target, err := url.Parse(upstream)
	if err != nil {
		log.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 1024
	transport.MaxIdleConnsPerHost = 1024
	transport.DisableCompression = true
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = transport
	proxy.FlushInterval = -1
	direct := proxy.Director
	proxy.Director = func(request *http.Request) {
		direct(request)
		request.Header.Set("Authorization", "Bearer "+token)
	}
	log.Fatal(http.ListenAndServe(listen, proxy))
}
