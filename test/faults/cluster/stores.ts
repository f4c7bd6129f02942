import { mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { accessKeyId, S3Server, secretAccessKey } from "../../store/s3-server.ts";

/** The store of a cluster, which can be away for everybody. */
export interface FaultyStore extends AsyncDisposable {
  readonly url: string;
  /** What its nodes need in their environment. */
  readonly env: NodeJS.ProcessEnv;
  away(): void;
  back(): void;
}

/** A link leads to it, or to a file that is no directory: then every request fails. It changes in one moment. */
export class DirectoryPlace implements FaultyStore {
  readonly env = {};
  readonly #link: string;

  constructor(dir: string) {
    this.#link = path.join(dir, "store");
    mkdirSync(`${this.#link}.there`);
    writeFileSync(`${this.#link}.away`, "");
    this.back();
  }

  get url(): string {
    return `file://${this.#link}`;
  }

  away(): void {
    this.#lead("away");
  }

  back(): void {
    this.#lead("there");
  }

  #lead(where: "there" | "away"): void {
    symlinkSync(`store.${where}`, `${this.#link}.new`);
    renameSync(`${this.#link}.new`, this.#link);
  }

  /** Its files stay, with the run's. */
  async [Symbol.asyncDispose](): Promise<void> {}
}

/** SeaweedFS, which is stopped in the middle of whatever it does: every request hangs, and some are answered much later. */
export class S3Place implements FaultyStore {
  readonly env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
  readonly #server: S3Server;

  private constructor(server: S3Server) {
    this.#server = server;
  }

  static async start(host: { readonly address: string; readonly via: readonly string[] }): Promise<S3Place> {
    return new S3Place(await S3Server.start(host));
  }

  get port(): number {
    return this.#server.port;
  }

  get url(): string {
    return this.#server.url("cluster").href;
  }

  away(): void {
    this.#server.signal("SIGSTOP");
  }

  back(): void {
    this.#server.signal("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop();
  }
}
