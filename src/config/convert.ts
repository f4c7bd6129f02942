import { readFileSync } from "node:fs";
import { Document, parseDocument } from "yaml";
import { SluiceError } from "../errors/error.ts";
import { isMap, type Converted } from "./converted.ts";
import { maskVariables, restore } from "./expand.ts";
import { plainValue } from "./load.ts";
import { fromLiteFs } from "./from-litefs.ts";
import { fromLitestream } from "./from-litestream.ts";

/**
 * The text of a sluice.yml that does what a litestream.yml (0.3 or 0.5) or a litefs.yml did. What has no counterpart
 * stands in it as a comment. Throws SLU-1001 for a file that can't be read, SLU-1002 for one that is neither.
 */
export function convertFile(file: string): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new SluiceError("SLU-1001", `${file} can't be read: ${(cause as Error).message}`, { cause });
  }
  return convert(text, file);
}

/** The same for a text; `name` is for messages. */
export function convert(text: string, name: string): string {
  // Both also expand $VAR without braces.
  const masked = maskVariables(text.replaceAll(/\$([A-Za-z_]\w*)/g, "${$1}"));
  const document = parseDocument(masked.text, { logLevel: "error" });
  const syntax = document.errors[0];
  if (syntax) throw new SluiceError("SLU-1002", `${name}: ${restore(syntax.message.split("\n")[0]!, masked)}`);
  const source = plainValue(document);
  if (source instanceof Error) throw new SluiceError("SLU-1002", `${name}: ${source.message}`);
  if (!isMap(source)) throw neither(name);
  const converted = Array.isArray(source["dbs"])
    ? fromLitestream(source)
    : ["fuse", "lease", "data", "proxy"].some((key) => isMap(source[key]))
      ? fromLiteFs(source)
      : undefined;
  if (converted === undefined) throw neither(name);
  return restore(render(converted), masked);
}

function neither(name: string): SluiceError {
  return new SluiceError("SLU-1002", `${name} is neither a litestream.yml nor a litefs.yml`, {
    hint: "A litestream.yml has `dbs`, a litefs.yml `fuse` and `data`.",
  });
}

function render({ config, remarks }: Converted): string {
  const document = new Document(config);
  if (remarks.length > 0) document.commentBefore = remarks.map((remark) => ` ${remark}`).join("\n");
  // Folding would cut expressions in two.
  return document.toString({ lineWidth: 0 });
}
