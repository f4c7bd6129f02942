import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { peers } from "../peers/peers.ts";

const START_MS = 60_000;

/** A real program with an HTTP API, in a directory of its own. */
export class PeerServer {
  readonly url: string;
  readonly #dir: string;
  readonly #process: ChildProcess;

  constructor(url: string, dir: string, process: ChildProcess) {
    this.url = url;
    this.#dir = dir;
    this.#process = process;
  }

  /** One member of etcd, which is a cluster, too. `pem`: it shows this certificate, and believes only who shows it. */
  static async etcd(pem?: { readonly cert: string; readonly key: string }): Promise<PeerServer> {
    const [client, peer, metrics] = await Promise.all([freePort(), freePort(), freePort()]);
    const url = `${pem === undefined ? "http" : "https"}://127.0.0.1:${client}`;
    const listen = ["--listen-client-urls", url, "--advertise-client-urls", url];
    const args = [...listen, "--listen-peer-urls", `http://127.0.0.1:${peer}`];
    if (pem !== undefined) {
      args.push("--cert-file", pem.cert, "--key-file", pem.key, "--client-cert-auth", "--trusted-ca-file", pem.cert);
      // What asks whether it's ready has no certificate.
      args.push("--listen-metrics-urls", `http://127.0.0.1:${metrics}`);
    }
    return PeerServer.#start(
      peers.etcd,
      (dir) => ["--data-dir", path.join(dir, "data"), ...args],
      url,
      pem === undefined ? `${url}/health` : `http://127.0.0.1:${metrics}/health`,
    );
  }

  /** A Consul agent in development mode: one server, in memory. */
  static async consul(): Promise<PeerServer> {
    const [http, serf, server] = await Promise.all([freePort(), freePort(), freePort()]);
    const url = `http://127.0.0.1:${http}`;
    const ports = [`-http-port=${http}`, `-serf-lan-port=${serf}`, `-server-port=${server}`];
    const off = ["serf-wan", "dns", "grpc", "grpc-tls"].map((name) => `-${name}-port=-1`);
    // Its default, 10 s, would make a test wait for half a minute.
    const shortest = ["-hcl", 'session_ttl_min = "1s"'];
    const args = ["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", ...ports, ...off, ...shortest];
    return PeerServer.#start(peers.consul, () => args, url, `${url}/v1/kv/x?keys=&consistent`);
  }

  static async #start(
    program: string,
    args: (dir: string) => readonly string[],
    url: string,
    ready: string,
  ): Promise<PeerServer> {
    const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-peer-"));
    const log = openSync(path.join(dir, "log"), "w");
    const child = spawn(program, args(dir), { stdio: ["ignore", log, log], cwd: dir });
    const server = new PeerServer(url, dir, child);
    const endMs = performance.now() + START_MS;
    for (;;) {
      const answer = await fetch(ready).catch(() => undefined);
      if (answer !== undefined && answer.status < 500) return server;
      if (child.exitCode !== null || performance.now() > endMs) {
        const said = readFileSync(path.join(dir, "log"), "utf8");
        await server.stop();
        throw new Error(`${program} did not start: ${said.slice(-2_000)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** SIGSTOP and SIGCONT: it hangs, instead of failing. */
  pause(isPaused: boolean): void {
    this.#process.kill(isPaused ? "SIGSTOP" : "SIGCONT");
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const exited = once(this.#process, "exit");
      this.#process.kill("SIGKILL");
      await exited;
    }
    rmSync(this.#dir, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}
