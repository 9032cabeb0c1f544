// Search runs in a worker, and browsers start none for a page that was opened from disk. There, a hidden frame takes its place:
// it has the same calls, and runs the same script, on the page's own thread.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.title = "Search"
      document.body.append(frame)
      const inside = frame.contentWindow
      const base = new URL(url, document.baseURI).href
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.importScripts = (...urls) => urls.reduce((before, next) => before.then(() => load(next)), Promise.resolve())
      const load = source =>
        new Promise((done, failed) => {
          const script = inside.document.createElement("script")
          script.src = new URL(source, base).href
          script.onload = done
          script.onerror = failed
          inside.document.body.append(script)
        })
      this.postMessage = data => this.ready.then(() => inside.dispatchEvent(new MessageEvent("message", { data })))
      this.terminate = () => frame.remove()
      this.ready = load(base)
    }
  }
}
