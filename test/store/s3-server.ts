import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openS3, S3Store } from "../../src/store/s3.ts";
import { s3Settings } from "../../src/store/s3-settings.ts";
import { S3Wire } from "../../src/store/s3-wire.ts";
import { peers } from "../peers/peers.ts";

export const accessKeyId = "AKIDEXAMPLE";
export const secretAccessKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const START_MS = 60_000;

interface S3Host {
  readonly address: string;
  readonly via: readonly string[];
}

/** SeaweedFS with one bucket, on ports of its own. */
export class S3Server {
  readonly port: number;
  readonly #address: string;
  readonly #dir: string;
  readonly #process: ChildProcess;

  private constructor(port: number, address: string, dir: string, process: ChildProcess) {
    this.port = port;
    this.#address = address;
    this.#dir = dir;
    this.#process = process;
  }

  /** On the loopback, or on another address; `via`: words before a command that is to run where that is. */
  static async start({ address, via }: S3Host = { address: "127.0.0.1", via: [] }): Promise<S3Server> {
    const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-s3-"));
    const port = await freePorts();
    const identity = {
      name: "test",
      credentials: [{ accessKey: accessKeyId, secretKey: secretAccessKey }],
      actions: ["Admin", "Read", "Write", "List", "Tagging"],
    };
    writeFileSync(path.join(dir, "s3.json"), JSON.stringify({ identities: [identity] }));
    const log = openSync(path.join(dir, "log"), "w");
    const [program, ...words] = [...via, peers.weed];
    const process = spawn(
      program,
      [
        ...words,
        "-logtostderr",
        "server",
        `-dir=${dir}`,
        `-ip=${address}`,
        `-ip.bind=${address}`,
        `-master.port=${port + 1}`,
        `-volume.port=${port + 2}`,
        `-filer.port=${port + 3}`,
        `-filer.localSocket=${dir}/filer.sock`,
        `-s3.localSocket=${dir}/s3.sock`,
        "-filer",
        "-s3",
        `-s3.port=${port}`,
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        `-s3.config=${dir}/s3.json`,
        "-volume.max=8",
        "-master.volumeSizeLimitMB=512",
      ],
      { stdio: ["ignore", log, log] },
    );
    const server = new S3Server(port, address, dir, process);
    try {
      await server.#createBucket();
    } catch (cause) {
      await server.stop();
      throw cause;
    }
    return server;
  }

  /** Its URL for a store below `folder`; `port`: of a proxy before it. */
  url(folder: string, port = this.port): URL {
    return new URL(`s3://bucket/${folder}?endpoint=http://${this.#address}:${port}`);
  }

  open(folder: string, port = this.port): S3Store {
    return openS3(this.url(folder, port), { accessKeyId, secretAccessKey }, {});
  }

  /** A store that loses its patience after `silenceMs`. */
  impatient(folder: string, port: number, silenceMs: number): S3Store {
    return new S3Store(this.wire(folder, port, silenceMs), `s3://bucket/${folder}`);
  }

  wire(folder: string, port = this.port, silenceMs = 10_000): S3Wire {
    const settings = s3Settings(this.url(folder, port), { accessKeyId, secretAccessKey }, {});
    return new S3Wire(settings, `s3://bucket/${folder}`, {}, silenceMs);
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name);
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill("SIGKILL");
      await once(this.#process, "exit");
    }
    rmSync(this.#dir, { recursive: true, force: true });
    for (const name of [`master-grpc-${this.port + 10_001}`, `volume-grpc-${this.port + 10_002}`])
      rmSync(path.join(os.tmpdir(), `seaweedfs-${name}.sock`), { force: true });
    for (const name of [`filer-grpc-${this.port + 10_003}`, `s3-grpc-${this.port + 10_000}`])
      rmSync(path.join(os.tmpdir(), `seaweedfs-${name}.sock`), { force: true });
  }

  async #createBucket(): Promise<void> {
    const wire = this.wire("");
    try {
      const end = performance.now() + START_MS;
      for (;;) {
        if (this.#process.exitCode !== null) throw new Error(`weed ended:\n${this.#log()}`);
        try {
          (await wire.send({ method: "PUT", key: "" })).resume();
          // It answers before it can store anything.
          (await wire.send({ method: "PUT", key: "ready", body: Buffer.from("x") })).resume();
          (await wire.send({ method: "DELETE", key: "ready" })).resume();
          return;
        } catch (cause) {
          if (performance.now() > end) throw new Error(`weed doesn't answer:\n${this.#log()}`, { cause });
          await sleep(200);
        }
      }
    } finally {
      wire.close();
    }
  }

  #log(): string {
    return readFileSync(path.join(this.#dir, "log"), "utf8").slice(-5_000);
  }
}

/**
 * The first of four ports in a row that are free now, as are those 10,000 above, which the server uses for gRPC; all
 * below those that the kernel gives to connections.
 */
async function freePorts(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 2_400) * 4;
    const all = [0, 1, 2, 3].flatMap((i) => [port + i, port + i + 10_000]);
    const used = await Promise.all(all.map(isUsed));
    if (!used.includes(true)) return port;
  }
}

function isUsed(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
