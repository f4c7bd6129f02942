import { spawnSync } from "node:child_process";

let found: readonly string[] | undefined;

/**
 * What stands before a command so that the kernel kills it when the process that started it dies, where util-linux has
 * `setpriv --pdeathsig` (prctl(2), PR_SET_PDEATHSIG; what the command forks does not inherit it); else nothing.
 */
export function deathSignalPrefix(): readonly string[] {
  // By its path: the command's own PATH may lead elsewhere.
  found ??=
    ["/usr/bin/setpriv", "/bin/setpriv"]
      .map((setpriv) => [setpriv, "--pdeathsig", "KILL", "--"] as const)
      .find(([file, ...args]) => spawnSync(file, [...args, "true"], { stdio: "ignore" }).status === 0) ?? [];
  return found;
}
