//! The container image: built and run by buildah, whose isolation by chroot needs no engine. That does not make the root of a container
//! read-only, so once more it runs in the image's files mounted read-only, as another engine would do it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::place::Place;
use super::tls::Server;
use super::{Scratch, as_root, output, root, static_binary};

const TAG: &str = concat!("tacho:", env!("CARGO_PKG_VERSION"));
const DATA: &str = "/var/lib/tacho";

/// Images and containers in a folder of their own.
struct Storage {
    folder: Scratch,
}

impl Storage {
    fn new() -> Self {
        let folder = Scratch::new();
        let (images, state) = (folder.path("images"), folder.path("state"));
        let text = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {images:?}\nrunroot = {state:?}\n");
        std::fs::write(folder.path("storage.conf"), text).unwrap();
        Self { folder }
    }

    /// What makes every buildah use it.
    fn environment(&self) -> Vec<(String, String)> {
        let config = self.folder.path("storage.conf").to_str().unwrap().to_owned();
        vec![("CONTAINERS_STORAGE_CONF".to_owned(), config), ("BUILDAH_ISOLATION".to_owned(), "chroot".to_owned())]
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        output(as_root(program).args(arguments).envs(self.environment())).trim().to_owned()
    }

    /// An empty data folder, as an engine makes it for a new volume.
    fn volume(&self) -> PathBuf {
        let folder = self.folder.path("volume");
        std::fs::create_dir(&folder).unwrap();
        output(as_root("chown").arg("10001:10001").arg(&folder));
        folder
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        drop(as_root("buildah").args(["rm", "--all"]).envs(self.environment()).output());
    }
}

#[tokio::test]
async fn the_image_runs_as_nobody_in_a_root_that_it_cannot_write() {
    let storage = Storage::new();
    let binary = static_binary().to_str().unwrap();
    let script = root().join("deploy/docker/image.sh");
    let server = Server::start();
    let mut image = as_root(script.to_str().unwrap());
    output(
        image
            .args([binary, TAG])
            .envs(storage.environment())
            .env("ENGINE", "buildah")
            .env("CA_BUNDLE", server.certificate()),
    );
    let config = says_what_it_is(&storage);

    let container = storage.run("buildah", &["from", TAG]);
    let files = storage.run("buildah", &["mount", &container]);
    holds_only_what_it_needs(Path::new(&files));
    let volume = storage.volume();
    let own = format!("{}:{DATA}", volume.display());
    // An engine would take the environment and the command from the image; buildah takes the first alone.
    let ports = ["HTTP", "OTLP_HTTP", "OTLP_GRPC"].map(|name| format!("--env=TACHO_LISTEN__{name}=127.0.0.1:0"));
    let way = ["buildah", "run", "--volume", &own, &ports[0], &ports[1], &ports[2], &container, "--", "/usr/bin/tacho"];
    let mut place = Place {
        way: way.map(str::to_owned).to_vec(),
        environment: storage.environment(),
        data: volume.clone(),
        log: storage.folder.path("tacho.log"),
    };
    let running = place.run();
    println!("image      {} to listen.json, by buildah run", in_ms(running.started_in));
    assert_eq!(running.status("Uid:"), "10001\t10001\t10001\t10001");
    place.feed(&running, 0, 10).await;
    running.stop();
    assert_eq!(place.tacho(&["healthcheck"]).0, 1);

    place.way = ["unshare", "--mount", "sh", "-ec", READ_ONLY, "sh", &files, volume.to_str().unwrap()]
        .map(str::to_owned)
        .to_vec();
    let variables =
        config["Env"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().split_once('=').unwrap());
    place.environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let ports =
        ["HTTP", "OTLP_HTTP", "OTLP_GRPC"].map(|name| (format!("TACHO_LISTEN__{name}"), "127.0.0.1:0".to_owned()));
    place.environment.extend(ports);
    let (code, said) = place.tacho(&["man", "/man"]);
    assert!(code == 1 && said.contains("Read-only file system"), "{said}");
    let running = place.run();
    println!("image      {} to listen.json, root read-only", in_ms(running.started_in));
    assert_eq!(running.status("Uid:"), "10001\t10001\t10001\t10001");
    // Those of the container before are there.
    place.feed(&running, 1, 20).await;
    running.stop();
    let (code, said) = place.tacho(&["healthcheck"]);
    assert!(code == 1 && said.contains("tacho does not run here"), "{said}");

    // The roots in the image are those that count. Who is known by them is heard, and answers nonsense.
    for (server, expected) in [(server, "invalid HTTP version"), (Server::start(), "invalid peer certificate")] {
        let urls = format!("[\"https://{}\"]", server.address);
        place.environment.push(("TACHO_EXPORT__ELASTICSEARCH__URLS".to_owned(), urls));
        let (code, said) = place.tacho(&["setup", "elasticsearch"]);
        assert!(code == 1 && said.contains(expected), "{said}");
    }
}

/// Mounts as an engine does for a container whose root is read-only, seen by this process and its children alone.
const READ_ONLY: &str = r#"
files=$1 volume=$2
shift 2
mount --bind "$files" "$files"
mount --bind "$volume" "$files/var/lib/tacho"
mount -o remount,bind,ro "$files"
exec unshare --root "$files" --wd /var/lib/tacho --setgid 10001 --setuid 10001 /usr/bin/tacho "$@""#;

fn in_ms(time: std::time::Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// Its configuration.
fn says_what_it_is(storage: &Storage) -> Value {
    let image: Value = serde_json::from_str(&storage.run("buildah", &["inspect", "--type", "image", TAG])).unwrap();
    let config = &image["Docker"]["config"];
    assert_eq!(config["User"], "10001:10001");
    assert_eq!(config["Volumes"], json!({DATA: {}}));
    assert_eq!(config["WorkingDir"], DATA);
    assert_eq!(config["ExposedPorts"], json!({"4317/tcp": {}, "4318/tcp": {}, "9464/tcp": {}}));
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "/usr/bin/tacho", "healthcheck"]));
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/usr/bin/tacho"]), &json!(["run"])));
    // No listener is opened to others by the image.
    let variables = config["Env"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let own: Vec<&str> = variables.filter(|variable| variable.starts_with("TACHO_")).collect();
    assert_eq!(own, ["TACHO_DATA_DIR=/var/lib/tacho"]);
    let labels = &config["Labels"];
    let label = |name: &str| labels[format!("org.opencontainers.image.{name}")].as_str().unwrap().to_owned();
    assert_eq!(
        [label("title"), label("version"), label("licenses")],
        ["tacho", env!("CARGO_PKG_VERSION"), "Apache-2.0"]
    );
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    let manifest: Value = serde_json::from_str(image["Manifest"].as_str().unwrap()).unwrap();
    let size: u64 = manifest["layers"].as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).sum();
    println!("image      {} MB, by the profile of the tests", size / 1_000_000);
    config.clone()
}

fn holds_only_what_it_needs(files: &Path) {
    let listed = output(as_root("find").arg(files).args(["!", "-type", "d", "-printf", "%P %m %U\n"]));
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["etc/ssl/certs/ca-certificates.crt 644 0", "usr/bin/tacho 755 0"]);
    let folders = output(as_root("find").arg(files).args(["-type", "d", "-user", "10001", "-printf", "%P\n"]));
    assert_eq!(folders, "var/lib/tacho\n");
}
