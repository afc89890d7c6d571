// Files go to the studio one after the other, each as the body of its own request, so they are never whole in memory.
function send(url, file, told) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${url}${url.includes("?") ? "&" : "?"}name=${encodeURIComponent(file.name)}`);
    request.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
    request.onload = () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { answer = { error: request.responseText }; }
      if (request.status < 300) resolve(answer); else reject(new Error(answer.error || `The studio refused the file (${request.status}).`));
    };
    request.onerror = () => reject(new Error("The upload broke off: is the studio still running? Drop the file again."));
    request.send(file);
  });
}

async function take(place, files, { follow }) {
  const bar = place.querySelector("progress"), alert = place.querySelector("[role=alert]");
  alert.textContent = "";
  bar.hidden = false;
  let last = null;
  const failed = [];
  for (const [k, file] of files.entries()) {
    try {
      last = await send(place.dataset.upload, file, (share) => { bar.value = (k + share) / files.length; });
    } catch (error) {
      failed.push(`${file.name}: ${error.message}`);
    }
  }
  bar.hidden = true;
  alert.textContent = failed.join(" ");
  if (last?.verdict) document.dispatchEvent(new CustomEvent("verdict", { detail: last }));
  else if (last) await follow(last);
}

export function bindUploads(root, tools) {
  for (const place of root.querySelectorAll("[data-upload]:not([data-bound])")) {
    place.dataset.bound = "1";
    const input = place.querySelector("input[type=file]");
    input.addEventListener("change", () => { if (input.files.length) take(place, [...input.files], tools).finally(() => { input.value = ""; }); });
    for (const name of ["dragenter", "dragover"]) place.addEventListener(name, (event) => { event.preventDefault(); place.classList.add("over"); });
    for (const name of ["dragleave", "drop"]) place.addEventListener(name, () => place.classList.remove("over"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      const files = [...event.dataTransfer.files];
      if (files.length) take(place, input.multiple ? files : files.slice(0, 1), tools);
    });
  }
}
