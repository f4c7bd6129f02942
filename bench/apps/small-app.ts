/** The smallest application, so that what is measured is what stands before it: answers GET, swallows bodies. */
import { createServer } from "node:net";
import { createServer as createHttp } from "node:http";

const body = "x".repeat(200);
const answer = Buffer.from(
  `HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\nConnection: keep-alive\r\n\r\n${body}`,
);
const http = createHttp((request, response) => {
  let bytes = 0;
  request.on("data", (chunk: Buffer) => (bytes += chunk.length));
  request.on("end", () => response.end(String(bytes)));
});
http.requestTimeout = 0;
const server = createServer((socket) => {
  socket.setNoDelay(true);
  socket.on("error", () => socket.destroy());
  socket.once("data", (first: Buffer) => {
    // Bodies are HTTP's business.
    if (!first.toString("latin1", 0, 3).startsWith("GET")) {
      socket.unshift(first);
      http.emit("connection", socket);
      return;
    }
    const serve = (data: Buffer): void => {
      for (let at = data.indexOf("\r\n\r\n"); at !== -1; at = data.indexOf("\r\n\r\n", at + 4)) socket.write(answer);
    };
    serve(first);
    socket.on("data", serve);
  });
});
server.listen(0, "127.0.0.1", () => console.log(`port ${(server.address() as { port: number }).port}`));
