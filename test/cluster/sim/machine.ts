import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { LogState } from "../../../src/database/contract.ts";
import type { Position } from "../../../src/ltx/position.ts";
import { newDisk, type SimDisk } from "../../log/sim/database.ts";
import type { TrueRecord } from "../../log/sim/history.ts";
import type { Pages } from "../../log/sim/ltx.ts";

/** What of a node's database survives its Sluice, whichever role it had. */
export interface NodeDisk extends SimDisk {
  /** Set while the state on disk says that the database follows: the last record that was written down. */
  following: LogState["confirmed"] | undefined;
  /** States that it was in: name and checksum. */
  readonly journal: Map<Position, bigint>;
  /** Who began the epoch that was begun here last, in which boot of the machine. */
  writer: { readonly tag: bigint; readonly boot: number } | undefined;
}

/**
 * A machine with a database on its disk and an application that writes it. The gate is here because it outlives Sluice:
 * while it's open the application commits, whatever Sluice does meanwhile.
 */
export class Machine {
  readonly name: string;
  readonly dir: string;
  disk: NodeDisk;
  boot = 1;
  /** Its wall clock, against the true one. */
  aheadMs = 0;
  onOpened: () => void = () => undefined;
  #isOpen = false;
  /** A transaction that keeps the gate from closing. */
  isWriting = false;
  /** Transactions that were ended by killing the application. */
  killed = 0;

  constructor(name: string, dir: string) {
    this.name = name;
    this.dir = dir;
    this.disk = { ...newDisk(dir), following: undefined, journal: new Map(), writer: undefined };
    mkdirSync(path.dirname(this.file), { recursive: true });
    // The content lives in memory; that there is a file is looked at.
    writeFileSync(this.file, "a database");
  }

  /** Where the database is, as Sluice names it. */
  get file(): string {
    return path.join(this.dir, "app.db");
  }

  /** The disk as a node has it that was restored from the log up to this record. */
  restore({ txid, fields, timestampMs, pages }: TrueRecord, logId: string): void {
    const { position, epoch } = fields;
    const confirmed = { txid, position, timestampMs };
    rmSync(path.join(this.dir, "nodes.json"), { force: true });
    this.disk = {
      ...newDisk(this.dir),
      pages,
      position,
      epoch,
      logState: { logId, nodeId: this.name, confirmed },
      following: confirmed,
      journal: new Map(),
      writer: undefined,
    };
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  openGate(): void {
    this.#isOpen = true;
    this.onOpened();
  }

  /** False while a transaction is under way. */
  closeGate(): boolean {
    if (!this.isWriting) this.#isOpen = false;
    return !this.#isOpen;
  }

  /** The application dies: what it had not committed is gone. */
  killApplication(): void {
    if (this.isWriting) this.killed++;
    this.isWriting = false;
  }

  /** An application commits, if the gate lets it. */
  commit(pages: Pages): boolean {
    if (!this.#isOpen) return false;
    this.disk.wal = [...this.disk.wal, pages];
    return true;
  }
}
