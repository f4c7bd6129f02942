import { isSluiceError, type SluiceError } from "../errors/error.ts";

/** The files or the WAL are not what Sluice has followed: they must be opened anew. */
export function isLost(error: Error): boolean {
  return ["SLU-2006", "SLU-2007", "SLU-2020"].some((code) => isSluiceError(error) && error.code === code);
}

/** The disk's fault, or another node's: the files that are open are as they were. */
export function isOutside(error: Error): boolean {
  return isSluiceError(error) && /^SLU-(2008|2009|2010|8\d\d\d)$/.test(error.code);
}

/** The log says that this database may not write to it, or the primary that it's another one: trying again changes nothing. */
export function isRefusal({ code }: SluiceError): boolean {
  return /^SLU-(410[1-6]|8207)$/.test(code);
}

/** What `--adopt` is the answer to: passed by another writer, no history with the log, or another log's. */
export function isForeign(error: Error): boolean {
  return ["SLU-4101", "SLU-4104", "SLU-4105", "SLU-8207"].some((code) => isSluiceError(error) && error.code === code);
}
