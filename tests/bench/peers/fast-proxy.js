// npm's fast-proxy over Node's own client, with the token added.
const http = require("node:http");
const fastProxy = require("fast-proxy");

const [port, upstream, token] = process.argv.slice(2);
const { proxy } = fastProxy({ base: upstream });
const rewriteRequestHeaders = (request, headers) => ({ ...headers, authorization: `Bearer ${token}` });
http
  .createServer((request, response) => proxy(request, response, request.url, { rewriteRequestHeaders }))
  .listen(Number(port), "127.0.0.1");
