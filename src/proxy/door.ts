import { Agent } from "node:http";
import type { ProxyConfig } from "../config/config.ts";
import type { Logger } from "../observe/log.ts";
import type { ProxyMetrics, WaitReason } from "../observe/proxy-metrics.ts";
import { Changes } from "./changes.ts";
import { HopSigner } from "./hop.ts";
import { KeepBudget } from "./kept-body.ts";
import type { NodeView } from "./node-view.ts";
import { Routes } from "./route.ts";
import { TrustedProxies } from "./trusted.ts";
import { WriteGate } from "./write-gate.ts";

/** All bodies that are kept in memory, together. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;
/** Shorter than front doors keep a connection open, so that none is used that the other side is about to close. */
const IDLE_MS = 20_000;
const IDLE_SOCKETS_MAX = 256;

export interface DoorOptions {
  readonly config: ProxyConfig;
  readonly view: NodeView;
  readonly metrics: ProxyMetrics;
  readonly log: Logger;
  /** The cluster's secret, which signs what front doors tell each other. A lone node may take random bytes. */
  readonly secret: string;
}

/** What all requests of one front door share. */
export class Door {
  readonly config: ProxyConfig;
  readonly view: NodeView;
  readonly metrics: ProxyMetrics;
  readonly log: Logger;
  readonly routes: Routes;
  readonly signer: HopSigner;
  readonly trusted: TrustedProxies;
  readonly changes: Changes;
  readonly gate: WriteGate;
  /** Databases without a position, and since when, by performance.now(). */
  readonly unnamed = new Map<string, number>();
  readonly budget = new KeepBudget(KEPT_BYTES_MAX);
  /** Of all bodies on disk: anybody can send any number at once. */
  readonly diskBudget: KeepBudget;
  /** Aborts when nothing waits any longer. */
  readonly closing = new AbortController();
  isDraining = false;
  /** The application isn't started yet: nothing is answered here. */
  isStarting = false;

  /** For reads of the application, which may be sent again when an idle connection turns out to be closed. */
  readonly appAgent = new Agent({ keepAlive: true, maxFreeSockets: IDLE_SOCKETS_MAX, timeout: 0, scheduling: "lifo" });
  readonly hopAgent = new Agent({ keepAlive: true, maxFreeSockets: IDLE_SOCKETS_MAX, scheduling: "lifo" });

  constructor({ config, view, metrics, log, secret }: DoorOptions) {
    this.config = config;
    this.view = view;
    this.metrics = metrics;
    this.log = log;
    this.diskBudget = new KeepBudget(config.replayDiskBytes);
    this.routes = new Routes(config.routes);
    this.signer = new HopSigner(secret);
    this.trusted = new TrustedProxies(config.trustedProxies);
    this.changes = new Changes(view);
    this.gate = new WriteGate(() => this.changes.wake());
    this.hopAgent.on("free", (socket: { setTimeout(ms: number): void }) => socket.setTimeout(IDLE_MS));
  }

  waited(reason: WaitReason, sinceMs: number): void {
    this.metrics.waits.observe({ for: reason }, (performance.now() - sinceMs) / 1000);
  }

  close(): void {
    this.closing.abort();
    this.changes.close();
    for (const agent of [this.appAgent, this.hopAgent]) agent.destroy();
  }
}
