import { type ChildProcess, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";

const PROGRAM = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
db.execute("pragma journal_mode=wal")
for line in sys.stdin:
    print(json.dumps(db.execute(line).fetchall()), flush=True)
`;

/** A program with an SQLite of its own that has the database open. */
export class Application {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#reader = createInterface({ input: child.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  static async start(file: string): Promise<Application> {
    const child = spawn("python3", ["-c", PROGRAM, file], { stdio: ["pipe", "pipe", "inherit"] });
    const app = new Application(child);
    await app.run("select 1");
    return app;
  }

  /** Runs one statement; its rows. */
  async run(sql: string): Promise<unknown> {
    this.#child.stdin!.write(`${sql}\n`);
    const line = await this.#lines.next();
    if (line.done === true) throw new Error(`the application ended at: ${sql}`);
    return JSON.parse(line.value);
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.stdin!.end();
    await ended;
    this.#reader.close();
  }
}
