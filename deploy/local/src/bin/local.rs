fn main() -> anyhow::Result<()> {
    let cache = local::fetch::Cache::open()?;
    println!("{}", cache.kafka()?.display());
    println!("{}", cache.engine()?.display());
    Ok(())
}
