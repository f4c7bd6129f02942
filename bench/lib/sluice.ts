import { request } from "node:http";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { Background, sluice } from "./processes.ts";

/** A fresh folder `name` below `scratch`. */
export function folder(scratch: string, name: string): string {
  const dir = path.join(scratch, name);
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  return dir;
}

/** Starts `sluice replicate DB STORE`; ready when it has taken over the database's log. */
export async function replicate(db: string, store: string, extra: readonly string[] = []): Promise<Background> {
  const process = new Background(sluice, ["replicate", ...extra, db, store], { LOG_LEVEL: "info" });
  await process.printed(/protected/);
  return process;
}

/** A client of the control socket of the process that looks after `db`; connections are kept. */
export class Control {
  readonly #socket: string;

  constructor(db: string) {
    const owner = path.join(path.dirname(db), `.${path.basename(db)}-sluice`, "owner.json");
    if (!existsSync(owner)) throw new Error(`${db} is not looked after`);
    this.#socket = (JSON.parse(readFileSync(owner, "utf8")) as { socket: string }).socket;
  }

  /** Waits until everything committed to `db` so far is in the store; the answer's body. */
  async sync(db: string): Promise<unknown> {
    return this.#call("POST", "/v1/sync", { db, wait: "store" });
  }

  /** The states of all databases of the process. */
  async states(): Promise<string[]> {
    const status = (await this.#call("GET", "/v1/status")) as { databases: { state: string }[] };
    return status.databases.map(({ state }) => state);
  }

  async #call(method: "GET" | "POST", place: string, body?: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const call = request({ socketPath: this.#socket, path: place, method }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => (text += chunk));
        response.on("end", () => {
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${place}: ${response.statusCode} ${text}`));
        });
      });
      call.on("error", reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Calls `on` for each event of the process; the returned function ends it. */
  events(on: (type: string, data: unknown) => void): () => void {
    const call = request({ socketPath: this.#socket, path: "/v1/events" }, (response) => {
      let rest = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        const parts = (rest + chunk).split("\n\n");
        rest = parts.pop() ?? "";
        for (const part of parts) {
          const [type, data] = part.split("\n");
          on(type!.slice("event: ".length), JSON.parse(data!.slice("data: ".length)));
        }
      });
      response.on("error", () => undefined);
    });
    call.on("error", () => undefined);
    call.end();
    return () => call.destroy();
  }
}
