// npm's http-proxy with a keep-alive agent and the token added.
const http = require("node:http");
const { createProxyServer } = require("http-proxy");

const [port, upstream, token] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
const proxy = createProxyServer({ target: upstream, agent, headers: { authorization: `Bearer ${token}` } });
proxy.on("error", (error, request, response) => response.destroy(error));
http.createServer((request, response) => proxy.web(request, response)).listen(Number(port), "127.0.0.1");
