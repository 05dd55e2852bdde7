// Draw with a running server and follow the job, in Node 18 or newer, or in a browser's module:
//   node draw.mjs [PROMPT] [FILE]
import { writeFile } from "node:fs/promises";

const server = process.env.SERVER ?? "http://127.0.0.1:8765";
const [prompt = "a red circle on a blue background", file = "drawn.png"] = process.argv.slice(2);

/** Yield the data of an event stream. */
async function* events(url) {
  const answer = await fetch(url);
  let text = "";
  for await (const chunk of answer.body.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const line = block.split("\n").find((one) => one.startsWith("data: "));
      if (line) yield JSON.parse(line.slice(6));
    }
  }
}

const answer = await fetch(`${server}/api/jobs`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ prompt, seed: 7 }),
});
const job = await answer.json();
if (!answer.ok) throw new Error(job.error.message);

let state = job;
for await (const event of events(`${server}${job.events}`)) {
  if (event.type === "step") console.log(`step ${event.number} of ${event.total}`);
  if (event.type === "state") state = event;
}
if (state.state !== "done") throw new Error(state.error?.message ?? state.state);
const picture = await fetch(`${server}${state.images[0].url}`);
await writeFile(file, Buffer.from(await picture.arrayBuffer()));
console.log(file);
