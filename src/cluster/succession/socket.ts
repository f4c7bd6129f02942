import { closeSync, constants, mkdirSync, openSync } from "node:fs";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import path from "node:path";

/**
 * Unix sockets in state directories. Their names may be longer than the 107 bytes that `sun_path` has room for, so they
 * are reached through a descriptor of the directory (proc(5), /proc/self/fd).
 */
function throughDescriptor(file: string): { readonly short: string; readonly close: () => void } {
  const fd = openSync(path.dirname(file), constants.O_RDONLY | constants.O_DIRECTORY);
  return { short: `/proc/self/fd/${fd}/${path.basename(file)}`, close: () => closeSync(fd) };
}

/** Listens at `file`, which only this user can open; its directory is made. Rejects with the system's error. */
export async function listenAt(file: string, onConnection: (socket: Socket) => void): Promise<Server> {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const { short, close } = throughDescriptor(file);
  const server = createServer(onConnection);
  server.unref();
  // The name is removed when it closes, so the directory's descriptor stays until then.
  server.once("close", close);
  const before = process.umask(0o177);
  try {
    server.listen({ path: short });
    await once(server, "listening");
  } catch (error) {
    close();
    throw error;
  } finally {
    process.umask(before);
  }
  return server;
}

/** Rejects with ENOENT or ECONNREFUSED where nobody listens. */
export async function connectTo(file: string): Promise<Socket> {
  const { short, close } = throughDescriptor(file);
  try {
    const socket = connect({ path: short });
    await once(socket, "connect");
    return socket;
  } finally {
    close();
  }
}
