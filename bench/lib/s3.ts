import { createServer } from "node:net";
import { once } from "node:events";
import path from "node:path";
import { Background } from "./processes.ts";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { peers } from "../../test/peers/peers.ts";

/** A real S3 server of the benchmark, or undefined where none is installed. */
export interface S3Server extends AsyncDisposable {
  readonly env: NodeJS.ProcessEnv;
  readonly endpoint: string;
  /** A store's URL below the server's one bucket. */
  url(path: string): string;
}

export async function s3Server(scratch: string): Promise<S3Server | undefined> {
  const { weed } = peers;
  if (!existsSync(weed)) return undefined;
  const dir = path.join(scratch, "s3");
  mkdirSync(dir, { recursive: true });
  const identities = path.join(dir, "s3.json");
  const login = { accessKey: "bench", secretKey: "bench-secret" };
  const actions = ["Admin", "Read", "Write", "List"];
  writeFileSync(identities, JSON.stringify({ identities: [{ name: "bench", credentials: [login], actions }] }));
  const [port, master, volume, filer] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
  const server = new Background(weed, [
    "server",
    `-dir=${dir}`,
    "-s3",
    `-s3.port=${port}`,
    `-s3.config=${identities}`,
    `-master.port=${master}`,
    `-volume.port=${volume}`,
    `-filer.port=${filer}`,
    "-ip=127.0.0.1",
    "-volume.max=10",
  ]);
  const env = { AWS_ACCESS_KEY_ID: login.accessKey, AWS_SECRET_ACCESS_KEY: login.secretKey, AWS_REGION: "us-east-1" };
  const endpoint = `http://127.0.0.1:${port}`;
  const { default: aws4 } = await import("aws4");
  const signed = aws4.sign(
    { service: "s3", region: "us-east-1", method: "PUT", host: `127.0.0.1:${port}`, path: "/bench" },
    { accessKeyId: login.accessKey, secretAccessKey: login.secretKey },
  );
  for (let i = 0; i < 200; i++) {
    const headers = signed.headers as Record<string, string>;
    const answer = await fetch(`${endpoint}/bench`, { method: "PUT", headers }).catch(() => undefined);
    if (answer && answer.status < 500) break;
    await new Promise((done) => setTimeout(done, 250));
  }
  return {
    env,
    endpoint,
    url: (place) => `s3://bench/${place}?endpoint=${encodeURIComponent(endpoint)}`,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port to be had");
  return address.port;
}
