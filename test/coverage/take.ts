import { takeCoverage } from "node:v8";
import { afterAll } from "vitest";

// vitest ends its processes by a signal, at which Node.js would write nothing.
afterAll(() => takeCoverage());
